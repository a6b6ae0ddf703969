import assert from "node:assert/strict";
import { test } from "node:test";
import { HandClock } from "../nsm/testing/fakes.ts";
import { rareWarnings } from "./rare-warnings.ts";
import { recordingLog } from "./recording-log.ts";

test("rareWarnings() warns once in ten seconds, and says the others at debug", async () => {
  const [clock, log] = [new HandClock(), recordingLog()];
  const warn = rareWarnings(log, clock);
  for (let nth = 0; nth < 3; nth += 1) warn("rpc-accept-failed", { nth });
  await clock.pass(9_999);
  warn("rpc-accept-failed", { nth: 3 });
  await clock.pass(1);
  warn("rpc-accept-failed", { nth: 4 });
  const said = log.events.map(({ level, fields }) => `${level} ${fields["nth"]}`);
  assert.deepEqual(said, ["warn 0", "debug 1", "debug 2", "debug 3", "warn 4"]);
});
