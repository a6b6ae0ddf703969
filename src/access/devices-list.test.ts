import assert from "node:assert/strict";
import { test } from "node:test";
import { exactAccess, isAllowed, missingAccess, parseDevicesList } from "./devices-list.ts";

const device = { major: 245, minor: 3 };

const rows = [
  { says: "all is allowed", list: "a *:* rwm\n", missing: "", exact: "" },
  { says: "all character devices are", list: "b 1:2 rwm\nc *:* rwm\n", missing: "", exact: "" },
  { says: "its major is", list: "c 245:* rw\n", missing: "", exact: "" },
  { says: "its minor is", list: "c *:3 rw\n", missing: "", exact: "" },
  { says: "only making nodes is", list: "c *:* m\nb *:* m\n", missing: "rw", exact: "" },
  { says: "block devices are", list: "b *:* rwm\n", missing: "rw", exact: "" },
  { says: "a block device of its numbers is", list: "b 245:3 rwm\n", missing: "rw", exact: "" },
  { says: "only others are", list: "c 1:3 rwm\nc 245:4 rwm\n", missing: "rw", exact: "" },
  { says: "it may be read only", list: "c 245:3 r\n", missing: "w", exact: "r" },
  { says: "it may be made only", list: "c 245:3 m\n", missing: "rw", exact: "m" },
  { says: "it is", list: "c 245:3 rwm\n", missing: "", exact: "rwm" },
  // The kernel requires one entry that allows all of what open(2) requests.
  { says: "reading and writing are in two entries", list: "c 245:3 r\nc *:3 w\n", missing: "w", exact: "r" },
  { says: "nothing is", list: "\n", missing: "rw", exact: "" },
  { says: "a line makes no sense", list: "c 245:3\nc x:3 rw\n", missing: "rw", exact: "" },
];
for (const { says, list, missing, exact } of rows) {
  test(`missingAccess() knows what a device lacks where ${says}`, () => {
    const entries = parseDevicesList(list);
    assert.equal(missingAccess(entries, device), missing);
    assert.equal(exactAccess(entries, device), exact);
    assert.equal(isAllowed(entries, device), missing === "");
  });
}

test("exactAccess() has the letters of all entries for the device", () => {
  assert.equal(exactAccess(parseDevicesList("c 245:3 r\nc 245:4 m\nc 245:3 w\n"), device), "rw");
});
