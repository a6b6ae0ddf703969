import assert from "node:assert/strict";
import { test } from "node:test";
import { differences } from "./differences.ts";

test("differences() says of two that are equal nothing, and of others each place, with the names of a list's entries", () => {
  const before = {
    links: [
      { ifname: "lo", flags: ["UP"] },
      { ifname: "eth0", mtu: 1500 },
    ],
    vfs: [{ address: "01:10.0" }],
  };
  assert.deepEqual(differences(before, structuredClone(before)), []);
  const now = { links: [{ ifname: "lo", flags: ["UP", "LOWER_UP"] }, { ifname: "nsm-1" }], vfs: {} };
  assert.deepEqual(differences(before, now), [
    '/links/0 (lo)/flags/1: was missing, is "LOWER_UP"',
    '/links/1 (eth0)/ifname: was "eth0", is "nsm-1"',
    "/links/1 (eth0)/mtu: was 1500, is missing",
    '/vfs: was [{"address":"01:10.0"}], is {}',
  ]);
  assert.deepEqual(differences(1, "1"), ['all: was 1, is "1"']);
});
