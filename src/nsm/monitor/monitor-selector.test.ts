import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ConnectionSchema, MonitorScopeSelectorSchema } from "../../gen/connection_pb.ts";
import { isSelected } from "./monitor-selector.ts";

const connection = create(ConnectionSchema, {
  networkService: "ns1",
  path: {
    pathSegments: [
      { name: "client", id: "c1" },
      { name: "nsmgr", id: "m1" },
      { name: "fwd", id: "f1", token: "secret" },
    ],
  },
});

/** Segments of a selector: "name/id", either of them empty where any will do. */
function selector(segments: readonly string[], networkServices: string[] = []) {
  const pathSegments = segments.map((text) => {
    const [name = "", id = ""] = text.split("/");
    return { name, id, token: "guessed" };
  });
  return create(MonitorScopeSelectorSchema, { pathSegments, networkServices });
}

for (const [segments, isFit] of [
  [[], true],
  [["client/c1"], true],
  [["nsmgr/m1"], true],
  [["fwd/f1"], true],
  [["/f1"], true],
  [["fwd/"], true],
  [["/"], true],
  [["nsmgr/m1", "fwd/f1"], true],
  [["client/c1", "/", "fwd/f1"], true],
  [["fwd/m1"], false],
  [["other/f1"], false],
  [["client/c1", "fwd/f1"], false],
  [["fwd/f1", "nsmgr/m1"], false],
  [["fwd/f1", "/"], false],
  [["client/c1", "nsmgr/m1", "fwd/f1", "/"], false],
] as const) {
  test(`isSelected() ${isFit ? "takes" : "leaves out"} a path that is requested by ${segments.join(" ") || "nothing"}`, () => {
    assert.equal(isSelected(selector(segments), connection), isFit);
  });
}

test("isSelected() requires one of the network services, and the path as well", () => {
  assert.equal(isSelected(selector(["fwd/f1"], ["ns0", "ns1"]), connection), true);
  assert.equal(isSelected(selector(["fwd/f1"], ["ns0"]), connection), false);
  assert.equal(isSelected(selector(["fwd/f2"], ["ns1"]), connection), false);
});
