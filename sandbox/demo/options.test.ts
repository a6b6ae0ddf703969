import assert from "node:assert/strict";
import { test } from "node:test";
import { readOptions } from "./options.ts";

test("readOptions() knows its options and refuses others", () => {
  assert.deepEqual(readOptions(["--once"]), { isOnce: true, isLogShown: false, isHelpWanted: false });
  assert.equal(readOptions(["-h"])?.isHelpWanted, true);
  assert.equal(readOptions(["--twice"]), undefined);
  assert.equal(readOptions(["more"]), undefined);
});
