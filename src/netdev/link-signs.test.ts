import assert from "node:assert/strict";
import { test } from "node:test";
import type { Link, LinkPlace, NetlinkEvent } from "../kernel/index.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { linkSigns } from "./link-signs.ts";

const news = (index: number): NetlinkEvent => ({ kind: "new-link", link: { index } as Link });
const LOST: NetlinkEvent = { kind: "lost" };

/** Two namespaces where link 7 may be. */
function setUp() {
  const clock = new HandClock();
  const listeners = new Set<(event: NetlinkEvent) => void>();
  const node = { watches: 0 };
  const watch = (kinds: readonly string[], listener: (event: NetlinkEvent) => void) => {
    assert.deepEqual(kinds, ["link"]);
    node.watches += 1;
    const own = (event: NetlinkEvent) => listener(event);
    listeners.add(own);
    return () => void listeners.delete(own);
  };
  const place = { rtnl: { watch } } as unknown as LinkPlace;
  const signs = linkSigns([place, place], { clock, concerns: ({ index }) => index === 7 });
  const say = async (event: NetlinkEvent, which = 0) => {
    [...listeners][which]?.(event);
    await settled();
  };
  /** Whether the wait is over, and how. */
  const wait = (waitMs = 100, signal?: AbortSignal) => {
    const seen = { end: "" };
    signs.next(waitMs, signal).then(
      () => {
        seen.end = "sign";
      },
      (error: Error) => {
        seen.end = error.message;
      },
    );
    return seen;
  };
  return { clock, listeners, node, signs, say, wait };
}

test("linkSigns() ends a wait at the news of its link in either namespace, at lost news, and when time is up", async () => {
  const { clock, listeners, say, wait } = setUp();
  assert.equal(listeners.size, 0, "what is ready at once costs nothing");
  for (const [event, which] of [
    [news(7), 0],
    [news(7), 1],
    [LOST, 0],
  ] as const) {
    const seen = wait();
    await say(news(8));
    assert.equal(seen.end, "");
    await say(event, which);
    assert.deepEqual([seen.end, clock.timerCount], ["sign", 0]);
  }
  const seen = wait();
  await clock.pass(99);
  assert.equal(seen.end, "");
  await clock.pass(1);
  assert.equal(seen.end, "sign");
});

test("linkSigns() listens once for all waits, and no more when it is closed", async () => {
  const { clock, listeners, node, signs, wait } = setUp();
  for (let count = 0; count < 2; count += 1) {
    wait();
    await clock.pass(100);
  }
  assert.deepEqual([node.watches, listeners.size], [2, 2]);
  signs.close();
  assert.equal(listeners.size, 0);
  wait();
  await clock.pass(100);
  signs.close();
  assert.equal(node.watches, 2);
});

test("linkSigns() that is closed before it has listened does not begin to", async () => {
  const { clock, node, signs, wait } = setUp();
  signs.close();
  const seen = wait();
  await clock.pass(100);
  assert.deepEqual([node.watches, seen.end], [0, "sign"]);
});

test("linkSigns() lets its caller go at once, and says why", async () => {
  const { clock, wait, say } = setUp();
  const caller = new AbortController();
  const seen = wait(100, caller.signal);
  await settled();
  caller.abort(new Error("caller has gone"));
  await settled();
  assert.deepEqual([seen.end, clock.timerCount], ["caller has gone", 0]);
  await say(news(7)); // no wait hears it
  assert.equal(seen.end, "caller has gone");
});
