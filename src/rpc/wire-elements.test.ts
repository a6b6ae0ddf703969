import assert from "node:assert/strict";
import { test } from "node:test";
import { create, createFileRegistry, type DescMessage, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema,
  ValueSchema,
} from "@bufbuild/protobuf/wkt";
import { ConnectionSchema } from "../gen/connection_pb.ts";
import { NetworkServiceRequestSchema } from "../gen/networkservice_pb.ts";
import { ListPodResourcesResponseSchema } from "../gen/podresources_v1_pb.ts";
import { checkElements } from "./wire-elements.ts";

/** What a decoded message is made of: fields that are set, items, entries, at every depth. */
function sizeOf(value: unknown): number {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value)) return 1;
  const parts = Object.entries(value).filter(([key]) => !key.startsWith("$"));
  return parts.reduce((sum, [, part]) => sum + sizeOf(part), 1);
}

const honest = create(NetworkServiceRequestSchema, {
  connection: {
    id: "one",
    networkService: "service",
    labels: { app: "a", pod: "b" },
    path: {
      index: 2,
      pathSegments: Array.from({ length: 5 }, (_, at) => ({
        name: `hop-${at}`,
        id: `id-${at}`,
        token: "x".repeat(1500),
        metrics: { seconds: "1" },
        expires: { seconds: 1n, nanos: 2 },
      })),
    },
    context: {
      ipContext: {
        srcIpAddrs: ["10.0.0.1/32"],
        excludedPrefixes: Array.from({ length: 100 }, (_, at) => `10.${at}.0.0/16`),
        dstRoutes: [{ prefix: "10.0.0.0/8", nextHop: "10.0.0.2" }],
        policies: [{ from: "10.0.0.1/32", routes: [{ prefix: "10.0.0.0/8" }] }],
      },
      ethernetContext: { srcMac: "02:00:00:00:00:01", vlanTag: 7 },
    },
  },
  mechanismPreferences: [{ cls: "LOCAL", type: "KERNEL", parameters: { name: "nsm-1", inodeURL: "inode://1/2" } }],
});

function countOf(schema: DescMessage, bytes: Uint8Array): number {
  for (let limit = 0; ; limit += 1) {
    try {
      checkElements(schema, bytes, limit);
      return limit;
    } catch (error) {
      if (!/more than/.test(String(error))) throw error;
    }
  }
}

test("checkElements() takes an honest Request, and no fewer elements than it has", () => {
  const bytes = toBinary(NetworkServiceRequestSchema, honest);
  const count = countOf(NetworkServiceRequestSchema, bytes);
  assert.ok(bytes.length < 12_000 && count > 150 && count < 250, `${bytes.length} bytes, ${count} elements`);
  assert.throws(() => checkElements(NetworkServiceRequestSchema, bytes, count - 1), {
    code: "RESOURCE_EXHAUSTED",
    message: `Cannot take a networkservice.NetworkServiceRequest of ${bytes.length} bytes: it has more than ${count - 1} elements; send less at once`,
  });
});

test("checkElements() counts items of packed lists, also small numbers beside large ones", () => {
  const cpus = { podResources: [{ containers: [{ cpuIds: [1n, 2n, 300n] }] }] };
  const bytes = toBinary(ListPodResourcesResponseSchema, create(ListPodResourcesResponseSchema, cpus));
  assert.equal(countOf(ListPodResourcesResponseSchema, bytes), 6);
});

/** Three lists of numbers, the first two of a fixed size, which no message of NSM has today; the last is but one number. */
function numbersSchema(): DescMessage {
  const { FIXED64, FLOAT, INT64 } = FieldDescriptorProto_Type;
  const { REPEATED, OPTIONAL } = FieldDescriptorProto_Label;
  const field = [FIXED64, FLOAT, INT64, INT64].map((type, at) => {
    return { name: `f${at}`, number: at + 1, type, label: at < 3 ? REPEATED : OPTIONAL };
  });
  const file = create(FileDescriptorProtoSchema, {
    name: "numbers.proto",
    syntax: "proto3",
    messageType: [{ name: "Numbers", field }],
  });
  const schema = createFileRegistry(file, () => undefined).getMessage("Numbers");
  assert.ok(schema);
  return schema;
}

test("checkElements() counts items of packed lists of a fixed size", () => {
  const schema = numbersSchema();
  for (const [bytes, count] of [
    [`0a 18 ${"00".repeat(24)}`, 4],
    [`12 0c ${"00".repeat(12)}`, 4],
    ["09 0000000000000000", 1],
  ] as const) {
    assert.equal(countOf(schema, hex(bytes)), count, bytes);
  }
  for (const bytes of [`0a 17 ${"00".repeat(23)}`, "12 03 000000"]) {
    assert.throws(() => checkElements(schema, hex(bytes), 100), { code: "INTERNAL" }, bytes);
  }
});

for (const [says, bytes] of [
  ["a packed list whose last number is cut", "1a 02 01 80"],
  ["a packed list that ends behind its message, without counting what is not there", "1a ff01 00"],
  ["a packed list where there is one number", "22 00"],
] as const) {
  test(`checkElements() refuses ${says}`, () => {
    assert.throws(() => checkElements(numbersSchema(), hex(bytes), 100), { code: "INTERNAL" });
  });
}

const hex = (text: string) => Buffer.from(text.replaceAll(" ", ""), "hex");
const refused = [
  { says: "a list of messages that comes as numbers", bytes: "10 00" },
  { says: "a message that comes in four bytes", bytes: "0d 00000000" },
  { says: "a group", bytes: "7b 7c" },
  { says: "a field without a number", bytes: "02 00" },
  { says: "a field that ends behind its message", bytes: "0a 02 0a 05 00 00 00 00" },
  { says: "a number that does not end", bytes: "78 ffffffffffffffffffff 01" },
  { says: "a length that does not end", bytes: "0a ffffffffff 01" },
  { says: "a length of five bytes that is beyond 32 bits", bytes: "0a ffffffff 1f" },
  { says: "a tag of five bytes that is beyond 32 bits", bytes: "f8ffffff1f 00" },
  { says: "no end", bytes: "0a" },
  { says: "fewer bytes than a fixed number has", bytes: "79 00 00" },
];
for (const { says, bytes } of refused) {
  test(`checkElements() refuses ${says}`, () => {
    assert.throws(() => checkElements(NetworkServiceRequestSchema, hex(bytes), 100), { code: "INTERNAL" });
  });
}

test("checkElements() takes 32 levels of messages, and not one more", () => {
  // A list in a list in a list: google.protobuf.Value.list_value (6), ListValue.values (1).
  const nest = (levels: number) => {
    let bytes = Buffer.alloc(0);
    for (let level = levels; level > 0; level -= 1) {
      bytes = Buffer.concat([Buffer.from([level % 2 === 1 ? 0x32 : 0x0a, bytes.length]), bytes]);
    }
    return bytes;
  };
  checkElements(ValueSchema, nest(32), 100);
  assert.throws(() => checkElements(ValueSchema, nest(33), 100), { code: "RESOURCE_EXHAUSTED", message: /32 deep/ });
});

test("checkElements() and the decoder see the same, whatever the bytes are", () => {
  let taken = 0;
  let seed = 12345;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % below;
  };
  const good = toBinary(NetworkServiceRequestSchema, honest).slice(0, 400);
  for (let round = 0; round < 20_000; round += 1) {
    const bytes = Uint8Array.from({ length: 2 + random(60) }, () => random(256));
    if (round % 2 === 0) bytes.set(good.subarray(random(300), random(300) + 60).subarray(0, bytes.length), 0);
    if (round % 3 === 0) bytes[0] = 0x0a;
    try {
      checkElements(NetworkServiceRequestSchema, bytes, 8);
    } catch {
      continue;
    }
    let decoded: unknown;
    try {
      decoded = fromBinary(NetworkServiceRequestSchema, bytes, { readUnknownFields: false });
    } catch {
      continue; // texts that are no UTF-8
    }
    taken += 1;
    const empty = sizeOf(create(NetworkServiceRequestSchema)) + sizeOf(create(ConnectionSchema));
    assert.ok(sizeOf(decoded) <= empty + 9 * 12, Buffer.from(bytes).toString("hex"));
  }
  assert.ok(taken > 100, `only ${taken} were taken`);
});
