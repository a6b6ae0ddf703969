import assert from "node:assert/strict";
import { test } from "node:test";
import { Latest, systemClock } from "../async/index.ts";
import type { Registration } from "../nsm/index.ts";
import type { RpcServer } from "../rpc/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { EarlierNames } from "./earlier-names.ts";

type State = NonNullable<Registration["state"]["value"]>;
const REGISTERED: State = { kind: "registered", managerSpiffeId: "spiffe://test/nsmgr" };
const REFUSED: State = { kind: "trying", problem: "not you", isPermanent: true };
const LOST: State = { kind: "trying", problem: "no socket", isPermanent: false };

function setUp(wanted: readonly string[]) {
  const done: string[] = [];
  const pauses: (() => void)[] = [];
  const time = { ms: 0 };
  const earlierNames = new Latest<readonly string[]>(wanted);
  const states = new Map<string, Registration["state"]>();
  const failing = new Set<string>();
  const log = recordingLog();
  const names = new EarlierNames({
    service: {
      earlierNames,
      handlersUnder: (name) => [{ path: name }] as never,
      setRegistered: (name, isRegistered) => void done.push(`${name} ${isRegistered ? "leads" : "leads no more"}`),
    },
    async serve(nth, [handler]) {
      if (failing.has(`${nth}`)) throw new Error("another process listens there");
      done.push(`serve ${handler?.path} at ${nth}`);
      const socket = { close: () => void done.push(`close socket ${nth}`) };
      const stop = async (graceMs: number) => void done.push(`stop ${nth} in ${graceMs}`);
      const openSocket = () => {
        if (failing.has("socket")) throw new Error("no descriptor is left");
        return socket;
      };
      return { openSocket, stop } as unknown as RpcServer;
    },
    register(name) {
      if (failing.has("entry")) throw new Error("not to be described");
      const state: Registration["state"] = new Latest();
      states.set(name, state);
      const start = () => void done.push(`register ${name}`);
      return { state, start, stop: async () => void done.push(`unregister ${name}`) };
    },
    graceMs: 2_000,
    spread: () => 0,
    clock: {
      ...systemClock,
      monotonicMs: () => time.ms,
      after(_delayMs, callback) {
        pauses.push(callback);
        return { cancel: () => void pauses.splice(pauses.indexOf(callback), 1) };
      },
    },
    log,
  });
  const taken = async () => {
    await new Promise(setImmediate);
    return done.splice(0);
  };
  return { names, earlierNames, states, failing, pauses, time, log, taken };
}

test("EarlierNames serves each name on a socket of its own while connections stand under it", async () => {
  const { names, earlierNames, taken } = setUp(["a", "b"]);
  assert.deepEqual(await taken(), [], "not before we are registered ourselves");
  names.start();
  const begun = (name: string, nth: number) => [`serve ${name} at ${nth}`, `${name} leads`, `register ${name}`];
  assert.deepEqual(await taken(), [...begun("a", 1), ...begun("b", 2)]);
  earlierNames.set(["b"]);
  const ended = ["a leads no more", "unregister a", "close socket 1", "stop 1 in 2000"];
  assert.deepEqual(await taken(), ended);
  earlierNames.set(["c", "b"]);
  assert.deepEqual(await taken(), begun("c", 1));
  await names.unregister();
  assert.deepEqual(
    (await taken()).filter((what) => what.startsWith("unregister")),
    ["unregister b", "unregister c"],
  );
  await names.stopServers();
  assert.deepEqual(await taken(), ["stop 2 in 2000", "stop 1 in 2000"]);
  earlierNames.set(["d"]);
  assert.deepEqual(await taken(), []);
});

test("EarlierNames takes a name for one that leads to us while its first try runs, and once it was accepted until it is refused", async () => {
  const { names, states, taken } = setUp(["a"]);
  names.start();
  await taken();
  for (const state of [LOST, REGISTERED, LOST, REFUSED]) states.get("a")?.set(state);
  assert.deepEqual(await taken(), ["a leads no more", "a leads", "a leads", "a leads no more"]);
  await names.unregister();
});

test("EarlierNames serves sixteen names, and another one when one of them has ended", async () => {
  const all = Array.from({ length: 20 }, (_, nth) => `n${nth}`);
  const { names, earlierNames, taken } = setUp(all);
  names.start();
  assert.equal((await taken()).filter((what) => what.startsWith("register ")).length, 16);
  earlierNames.set([...all.slice(1)].reverse());
  assert.deepEqual(
    (await taken()).filter((what) => what.startsWith("register ")),
    ["register n19"],
  );
  await names.unregister();
});

test("EarlierNames continues with the others where a socket cannot be listened on, and tries again at another", async () => {
  const { names, earlierNames, failing, pauses, log, taken } = setUp(["a", "b"]);
  failing.add("1");
  names.start();
  const registrations = async () => (await taken()).filter((what) => what.startsWith("register "));
  assert.deepEqual(await registrations(), ["register b"]);
  earlierNames.set(["b", "a"]);
  assert.deepEqual([await registrations(), log.of("earlier-name-not-served").length, pauses.length], [[], 1, 1]);
  pauses.pop()?.();
  assert.deepEqual(await taken(), ["serve a at 3", "a leads", "register a"]);
  await names.unregister();
  await names.stopServers();
});

for (const what of ["socket", "entry"]) {
  test(`EarlierNames leaves no server behind where its ${what} cannot be opened, and tries again`, async () => {
    const { names, earlierNames, failing, pauses, taken } = setUp(["a"]);
    failing.add(what);
    names.start();
    const closed = what === "entry" ? ["close socket 1"] : [];
    assert.deepEqual(await taken(), ["serve a at 1", ...closed, "stop 1 in 2000"]);
    failing.clear();
    pauses.pop()?.();
    assert.deepEqual(await taken(), ["serve a at 2", "a leads", "register a"]);
    failing.add(what);
    earlierNames.set(["a", "b"]);
    await taken();
    await names.unregister();
    assert.equal(pauses.length, 0);
    await names.stopServers();
  });
}

test("EarlierNames tries all again of what it could not serve, though one of them fails for ever", async () => {
  const { names, failing, pauses, taken } = setUp(["a", "b"]);
  failing.add("1").add("2");
  names.start();
  assert.deepEqual(await taken(), []);
  failing.add("3");
  pauses.pop()?.();
  assert.deepEqual(await taken(), ["serve b at 4", "b leads", "register b"]);
  await names.unregister();
});

test("EarlierNames uses a place again where nothing could be served, after a pause that is longer each time, and sooner where no other is left", async () => {
  const { names, earlierNames, failing, pauses, time, taken } = setUp(["a"]);
  const placeOf = async (name: string) => {
    earlierNames.set([name]);
    for (let tries = 0; tries < 40; tries += 1) {
      const served = (await taken()).find((what) => what.startsWith(`serve ${name} at `));
      if (served) return Number(served.split(" at ")[1]);
      pauses.pop()?.();
    }
    return undefined;
  };
  failing.add("1");
  names.start();
  assert.equal(await placeOf("b"), 2);
  time.ms = 14_000;
  assert.equal(await placeOf("c"), 2);
  time.ms = 15_000;
  assert.equal(await placeOf("d"), 2, "it was tried again, in vain");
  time.ms = 30_000;
  assert.notEqual(await placeOf("e"), 1);
  failing.clear();
  time.ms = 45_000;
  assert.equal(await placeOf("f"), 1);
  for (let nth = 1; nth <= 32; nth += 1) failing.add(`${nth}`);
  assert.equal(await placeOf("g"), undefined);
  failing.delete("7");
  assert.equal(await placeOf("g"), 7);
  await names.unregister();
});

test("EarlierNames tries nothing again that could not be served while it ends", async () => {
  const { names, failing, pauses } = setUp(["a"]);
  failing.add("1");
  names.start();
  await names.unregister();
  assert.equal(pauses.length, 0);
});

test("EarlierNames misses no change, whenever it comes", async () => {
  for (let steps = 0; steps < 20; steps++) {
    const { names, earlierNames, taken } = setUp(["a"]);
    names.start();
    await taken();
    earlierNames.set([]);
    for (let step = 0; step < steps; step++) await null;
    earlierNames.set(["c"]);
    assert.ok((await taken()).includes("register c"), `after ${steps} microtasks`);
    await names.unregister();
  }
});
