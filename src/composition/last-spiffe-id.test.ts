import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { UnsyncedDisk } from "../../sandbox/machine/unsynced-disk.ts";
import { Latest, systemRandom } from "../async/index.ts";
import { openStateFolder } from "../kernel/index.ts";
import { silentLog } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { keepSpiffeId, lastSpiffeId } from "./last-spiffe-id.ts";

const [ONE, OTHER] = [{ id: "spiffe://sandbox.test/one" }, { id: "spiffe://sandbox.test/other" }];

test("keepSpiffeId() keeps the first and each that follows, for lastSpiffeId() of the next instance", async () => {
  const state = await openStateFolder("/state", { disk: new UnsyncedDisk(), random: systemRandom });
  assert.equal(await lastSpiffeId(state, silentLog), undefined);
  const current = new Latest<typeof ONE>();
  const stop = keepSpiffeId({ state, last: undefined, current, log: recordingLog() });
  current.set(ONE);
  current.set(OTHER);
  await stop();
  assert.equal(await lastSpiffeId(state, silentLog), OTHER.id);
  current.set(ONE);
  assert.equal(await lastSpiffeId(state, silentLog), OTHER.id);
});

test("keepSpiffeId() writes nothing where it is kept already, and tries what cannot be written again with the next SVID", async () => {
  const log = recordingLog();
  const written: string[] = [];
  const state = {
    async replace(_name: string, text: string) {
      written.push(text.trim());
      throw new Error("the disk is full");
    },
  };
  const current = new Latest(ONE);
  await keepSpiffeId({ state, last: ONE.id, current, log })();
  assert.deepEqual(written, []);
  const stop = keepSpiffeId({ state, last: undefined, current, log });
  await nextTurn();
  current.set({ ...ONE });
  await stop();
  assert.deepEqual(written, [ONE.id, ONE.id]);
  assert.deepEqual(
    log.of("spiffe-id-not-kept").map(({ error }) => error),
    ["the disk is full", "the disk is full"],
  );
});

test("lastSpiffeId() takes no text that is none, and no file that cannot be read", async () => {
  for (const text of [undefined, "", "\n", "x".repeat(3_000)]) {
    assert.equal(await lastSpiffeId({ read: async () => text }, silentLog), undefined, text?.slice(0, 9) ?? "none");
  }
  const read = () => Promise.reject(new Error("EIO"));
  const log = recordingLog();
  assert.equal(await lastSpiffeId({ read }, log), undefined);
  assert.deepEqual(
    log.of("spiffe-id-not-read").map(({ error }) => error),
    ["EIO"],
  );
});
