import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { within } from "../../../test/scenes/until.ts";
import { firstRecord } from "./first-record.ts";

/** A handshake record of TLS with this length in its header, and so many bytes behind that. */
function record(length: number, bytes = length): Buffer {
  return Buffer.concat([Buffer.from([22, 3, 1, length >> 8, length & 0xff]), Buffer.alloc(bytes, 1)]);
}

const listeners = (stream: PassThrough) => ["readable", "close", "end"].map((event) => stream.listenerCount(event));

async function reading(...pieces: readonly Buffer[]) {
  const stream = new PassThrough();
  const { signal } = new AbortController();
  const outcome = { isOver: false };
  const over = firstRecord(stream, signal).then(() => {
    outcome.isOver = true;
  });
  over.catch(() => {});
  for (const piece of pieces) {
    stream.write(piece);
    for (let turns = 0; turns < 3; turns += 1) await setImmediate();
  }
  return { stream, signal, over, outcome };
}

for (const [says, bytes, isOver] of [
  ["its whole record is there", record(10), true],
  ["there is more than its record", Buffer.concat([record(10), record(3)]), true],
  ["its record is not there but for a byte", record(10, 9), false],
  ["not even its header is", record(10).subarray(0, 4), false],
  ["its record is as long as one may be, and not there", record(16_384, 16_383), false],
  ["its record is longer than any may be: TLS refuses that", record(16_385, 0), true],
  ["it is no handshake: TLS refuses that", Buffer.from("GET"), true],
] as const) {
  test(`firstRecord() ${isOver ? "is over when" : "waits where"} ${says}`, async () => {
    const { stream, outcome } = await reading(bytes);
    assert.equal(outcome.isOver, isOver);
    stream.destroy();
  });
}

test("firstRecord() puts the pieces of a record together, and leaves all of them in the stream", async () => {
  const [whole, more] = [record(10), Buffer.from("more")];
  const { stream, signal, over } = await reading(
    whole.subarray(0, 3),
    whole.subarray(3, 9),
    Buffer.concat([whole.subarray(9), more]),
  );
  await within("the record is complete", over);
  assert.deepEqual(stream.read(), Buffer.concat([whole, more]));
  assert.equal(getEventListeners(signal, "abort").length, 0);
  assert.deepEqual(listeners(stream), listeners(new PassThrough()), "nothing of it stays");
});

test("firstRecord() fails with a peer that closes before, and with the signal's reason", async () => {
  const { stream, over } = await reading(record(10, 3));
  stream.destroy();
  await assert.rejects(within("the close is noticed", over), /closed the connection before it said anything/);
  const silent = new PassThrough();
  await assert.rejects(firstRecord(silent, AbortSignal.abort(new Error("too late"))), /too late/);
  await assert.rejects(firstRecord(stream, new AbortController().signal), /closed the connection/);
  assert.deepEqual([silent.listenerCount("readable"), stream.listenerCount("readable")], [0, 0]);
});
