import assert from "node:assert/strict";
import { test } from "node:test";
import { clone, create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { manyParts } from "../../test/scenes/many-parts.ts";
import { ConnectionSchema } from "../gen/connection_pb.ts";
import { copyMessage } from "./copy-message.ts";

test("copyMessage() makes what protobuf's own clone makes, of maps, lists, messages, bytes and unknown fields", () => {
  const labels = { a: "b", constructor: "c" };
  Object.defineProperty(labels, "__proto__", { value: "d", enumerable: true });
  const connection = create(ConnectionSchema, {
    id: "c1",
    labels,
    path: { index: 1, pathSegments: [{ id: "s1" }, {}] },
  });
  manyParts(connection);
  const unknown = Buffer.from([0xfa, 0x3f, 2, 7, 8]); // field 1023
  const received = fromBinary(ConnectionSchema, Buffer.concat([toBinary(ConnectionSchema, connection), unknown]));
  assert.equal(received.$unknown?.length, 1);
  for (const message of [connection, received]) {
    const copy = copyMessage(message);
    assert.deepEqual(copy, clone(ConnectionSchema, message));
    assert.deepEqual(toBinary(ConnectionSchema, copy), toBinary(ConnectionSchema, message));
  }
});

test("copyMessage() keeps the defaults of fields that are not set", () => {
  const file = create(FileDescriptorProtoSchema, { messageType: [{ name: "M" }] });
  assert.deepEqual(copyMessage(file), clone(FileDescriptorProtoSchema, file));
  assert.equal(copyMessage(file).syntax, "");
});

test("copyMessage() shares nothing with the message", () => {
  const bytes = Buffer.from([0xfa, 0x3f, 1, 7]);
  const message = fromBinary(ConnectionSchema, bytes);
  message.labels["a"] = "b";
  message.path = {
    ...create(ConnectionSchema, { path: { pathSegments: [{ id: "s1" }] } }).path,
  } as typeof message.path;
  const before = toBinary(ConnectionSchema, message);
  const copy = copyMessage(message);
  copy.labels["a"] = "c";
  copy.path?.pathSegments.pop();
  copy.$unknown?.[0]?.data.fill(0);
  copy.$unknown?.pop();
  assert.deepEqual(toBinary(ConnectionSchema, message), before);
});
