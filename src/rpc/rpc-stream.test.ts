import assert from "node:assert/strict";
import { test } from "node:test";
import { within } from "../../test/scenes/until.ts";
import type { Connection } from "./connection.ts";
import { RpcStream, type StreamSource } from "./rpc-stream.ts";
import { RpcError } from "./status.ts";

const LOST = new RpcError("UNAVAILABLE", "cannot connect");

/** A stream of numbers that a test feeds, and what is done to its call. */
function fed(isLost = false) {
  const seen: string[] = [];
  const ends = Promise.withResolvers<void>();
  const opened = Promise.withResolvers<StreamSource>();
  const stream = new RpcStream<number>(
    async (source) => {
      if (isLost) throw LOST;
      const call = { cancel() {}, pause: () => void seen.push("pause"), resume: () => void seen.push("resume") };
      source.started({} as Connection, call);
      opened.resolve(source);
      await ends.promise;
    },
    { decode: ([number = -1]) => number, ended: () => void seen.push("ended"), cancel: () => void seen.push("cancel") },
  );
  const feed = async (count: number) => {
    for (let at = 0; at < count; at += 1) (await opened.promise).message(Uint8Array.of(at));
  };
  return { stream, seen, feed, ...ends };
}

for (const error of [undefined, new RpcError("UNAVAILABLE", "the connection was lost")]) {
  test(`RpcStream gives all that came to a reader that begins after its end with ${error?.code ?? "OK"}`, async () => {
    const { stream, seen, feed, resolve, reject } = fed();
    await feed(3);
    if (error) reject(error);
    else resolve();
    await new Promise(setImmediate);
    assert.deepEqual(seen, ["ended"]);
    const read: number[] = [];
    const reading = (async () => {
      for await (const number of stream) read.push(number);
    })();
    await (error ? assert.rejects(reading, error) : reading);
    assert.deepEqual(read, [0, 1, 2]);
  });
}

test("RpcStream has the peer wait at sixteen messages, and continue below that", async () => {
  const { stream, seen, feed, resolve } = fed();
  await feed(17);
  assert.deepEqual(seen, ["pause", "pause"]);
  const reader = stream[Symbol.asyncIterator]();
  await reader.next();
  assert.deepEqual(seen.slice(2), [], "sixteen are left");
  await reader.next();
  assert.deepEqual(seen.slice(2), ["resume"]);
  await reader.return?.();
  assert.equal(seen.at(-1), "cancel");
  resolve();
});

for (const error of [undefined, new RpcError("UNAVAILABLE", "the connection was lost")]) {
  test(`RpcStream wakes a reader that waits when it ends with ${error?.code ?? "OK"}, and is not cancelled after that`, async () => {
    const { stream, seen, feed, resolve, reject } = fed();
    await feed(1);
    const reader = stream[Symbol.asyncIterator]();
    await reader.next();
    const end = within("the reader is woken", reader.next());
    if (error) reject(error);
    else resolve();
    if (error) await assert.rejects(end, error);
    else assert.equal((await end).done, true);
    stream.cancel();
    assert.ok(!seen.includes("cancel"), "it is over");
  });
}

test("RpcStream without a connection has neither that nor metadata, and says why", async () => {
  const { stream } = fed(true);
  await assert.rejects(within("the connection is known", stream.connection), LOST);
  await assert.rejects(within("the metadata are known", stream.metadata), LOST);
});
