import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ConnectionSchema, MonitorScopeSelectorSchema } from "../../src/gen/connection_pb.ts";
import { isSelected } from "./monitor-board.ts";

const pathSegments = ["nsc", "nsmgr", "forwarder", "nse"].map((name) => ({ name, id: `${name}-id` }));
const connection = create(ConnectionSchema, { networkService: "ns", path: { index: 3, pathSegments } });

const rows = [
  { says: "everything when it is empty", selector: {}, fits: true },
  { says: "its network services only", selector: { networkServices: ["other"] }, fits: false },
  { says: "segments in a row, anywhere in the path", selector: { pathSegments: pathSegments.slice(1, 3) }, fits: true },
  {
    says: "no segments with one between",
    selector: { pathSegments: [{ name: "nsc" }, { name: "forwarder" }] },
    fits: false,
  },
  { says: "any id when it names none", selector: { pathSegments: [{ name: "forwarder" }] }, fits: true },
  { says: "no segment beyond the end", selector: { pathSegments: [{ name: "nse" }, { name: "" }] }, fits: false },
];
for (const { says, selector, fits } of rows) {
  test(`isSelected() takes ${says}`, () => {
    assert.equal(isSelected(create(MonitorScopeSelectorSchema, selector), connection), fits);
  });
}
