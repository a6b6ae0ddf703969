import assert from "node:assert/strict";
import { test } from "node:test";
import { readOptions } from "./options.ts";

test("readOptions() measures everything when nothing is asked for", () => {
  assert.deepEqual(readOptions([]), {
    isQuick: false,
    isHostileOnly: false,
    isHelpWanted: false,
    jsonFile: undefined,
    cycles: 0,
    logFile: undefined,
    profileFolder: undefined,
  });
});

test("readOptions() measures innocents alone on request", () => {
  assert.equal(readOptions(["--hostile"])?.isHostileOnly, true);
});

test("readOptions() takes files and numbers", () => {
  const options = readOptions(["--quick", "--json", "out.json", "--cycles=10000", "--log", "f.log"]);
  assert.equal(options?.jsonFile, "out.json");
  assert.equal(options?.cycles, 10_000);
  assert.equal(options?.isQuick, true);
  assert.equal(options?.logFile, "f.log");
});

for (const args of [["--fast"], ["--cycles", "many"], ["--cycles", "-1"], ["--json"], ["extra"]]) {
  test(`readOptions() refuses ${args.join(" ")}`, () => assert.equal(readOptions(args), undefined));
}
