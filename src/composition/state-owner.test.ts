import assert from "node:assert/strict";
import { test } from "node:test";
import { describeHolder } from "./state-owner.ts";

const since = "2026-11-29T14:00:00.000Z";

test("describeHolder() says who has the folder, and makes nothing up", () => {
  const text = JSON.stringify({ name: "fwd-1", pid: 7, version: "0.1.0", since });
  assert.equal(describeHolder(text), `fwd-1, process 7 as its container counts, version 0.1.0, since ${since}`);
  const odd = [
    undefined,
    "",
    "{",
    "null",
    "7",
    '{"name":7}',
    JSON.stringify({ name: "x".repeat(2_000), pid: 7, version: "0", since }),
  ];
  for (const unknown of odd) assert.equal(describeHolder(unknown), "it has not said who it is", unknown ?? "none");
});
