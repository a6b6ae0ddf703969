import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  type ConnectionEvent,
  ConnectionEventType,
  ConnectionSchema,
  MonitorScopeSelectorSchema,
  State,
} from "../../gen/connection_pb.ts";
import { settled } from "../testing/fakes.ts";
import { MonitorHub } from "./monitor.ts";

const own = { spiffeId: "spiffe://test/m", isManager: true };
const foreign = { spiffeId: "spiffe://test/x", isManager: false };
const { INITIAL_STATE_TRANSFER, UPDATE, DELETE } = ConnectionEventType;

test("MonitorHub.subscribe() publishes what is established at once, then each change, without tokens", async () => {
  const hub = new MonitorHub();
  hub.update(own, connection("f1"));
  const { heard } = listen(hub);
  hub.update(own, connection("f2"));
  hub.remove("f1");
  await settled();
  assert.deepEqual(
    heard.map(({ type, connections }) => [type, Object.keys(connections)]),
    [
      [INITIAL_STATE_TRANSFER, ["f1"]],
      [UPDATE, ["f2"]],
      [DELETE, ["f1"]],
    ],
  );
  assert.ok(!JSON.stringify(heard).includes("secret"));
});

test("MonitorHub.subscribe() begins with an empty transfer when nothing is established any more", async () => {
  const hub = new MonitorHub();
  hub.update(own, connection("f1"));
  hub.remove("f1");
  const { heard } = listen(hub);
  await settled();
  assert.deepEqual(
    heard.map(({ type, connections }) => [type, connections]),
    [[INITIAL_STATE_TRANSFER, {}]],
  );
});

test("MonitorHub.subscribe() shows no peer what others have made", async () => {
  const hub = new MonitorHub();
  hub.update(foreign, connection("f1"));
  const { heard } = listen(hub);
  hub.update(foreign, connection("f1", State.DOWN));
  hub.remove("f1");
  await settled();
  assert.deepEqual(
    heard.flatMap(({ connections }) => Object.keys(connections)),
    [],
  );
});

test("MonitorHub.subscribe() forgets a subscriber as soon as it is gone, though it never reads", () => {
  const hub = new MonitorHub();
  const gone = new AbortController();
  hub.subscribe({ selector: create(MonitorScopeSelectorSchema), sees: () => true, signal: gone.signal });
  assert.equal(hub.subscriberCount, 1);
  gone.abort();
  assert.equal(hub.subscriberCount, 0);
});

test("MonitorHub.subscribe() keeps only the latest of each connection for a slow reader", async () => {
  const hub = new MonitorHub();
  hub.update(own, connection("f1"));
  const events = unread(hub);
  for (let turn = 0; turn < 1000; turn++) hub.update(own, changed(`f${turn % 3}`, turn));
  hub.update(own, connection("f0", State.DOWN));
  hub.remove("f1");
  const heard = await read(events);
  assert.ok(heard.length <= 258, `${heard.length} events`);
  assert.equal(heard.at(-1)?.type, DELETE);
  assert.equal(heard.at(-2)?.connections["f0"]?.state, State.DOWN);
});

test("MonitorHub.subscribe() loses no connection's last word for a slow reader, and no event for one that keeps up", async () => {
  const hub = new MonitorHub();
  const { heard: quick } = listen(hub);
  const events = unread(hub);
  hub.update(own, connection("first", State.DOWN));
  for (let turn = 0; turn < 300; turn++) {
    hub.update(own, changed("f0", turn));
    if (turn % 100 === 99) await settled();
  }
  hub.update(own, connection("first"));
  for (let turn = 300; turn < 600; turn++) hub.update(own, changed("f0", turn));
  await settled();
  const slow = await read(events);
  assert.equal(slow.findLast(({ connections }) => connections["first"])?.connections["first"]?.state, State.UP);
  const reported = quick.slice(0, 302).flatMap(({ connections }) => Object.keys(connections));
  assert.equal(reported.length, 301, "one event for each change");
});

test("MonitorHub.subscribe() gives a slow reader the last words in the order in which they came", async () => {
  const hub = new MonitorHub();
  const events = unread(hub);
  hub.update(own, connection("f1"));
  for (let turn = 0; turn < 255; turn++) hub.update(own, changed("f2", turn));
  hub.update(own, connection("f1", State.DOWN));
  const ids = (await read(events)).map(({ connections }) => Object.keys(connections));
  assert.deepEqual(ids, [[], ["f2"], ["f1"]]);
});

test("MonitorHub.subscribe() keeps for a slow reader no more versions of a large connection than a small share of bytes has room for", async () => {
  const hub = new MonitorHub();
  const events = unread(hub);
  for (let turn = 0; turn < 100; turn++) hub.update(own, changed("f0", turn, 60 * 1024));
  const heard = await read(events);
  assert.ok(heard.length <= 5, `${heard.length} events`);
  assert.equal(heard.at(-1)?.connections["f0"]?.labels["turn"], "99");
  hub.update(own, changed("f0", 100));
  hub.update(own, changed("f0", 101));
  await settled();
  assert.deepEqual(
    heard.slice(-2).map(({ connections }) => connections["f0"]?.labels["turn"]),
    ["100", "101"],
    "it keeps up again",
  );
});

test("MonitorHub.subscribe() keeps nothing for a slow reader of what has come and gone meanwhile, and the end of what it knew", async () => {
  const hub = new MonitorHub();
  for (const id of ["known", "again"]) hub.update(own, connection(id));
  const events = unread(hub);
  hub.remove("known");
  hub.remove("again");
  for (let turn = 0; turn < 1000; turn++) {
    hub.update(own, connection(`f${turn}`));
    hub.remove(`f${turn}`);
  }
  hub.update(own, connection("again", State.DOWN));
  const heard = await read(events);
  assert.deepEqual(
    heard.slice(1).map(({ type, connections }) => [type, Object.keys(connections)]),
    [
      [DELETE, ["known"]],
      [UPDATE, ["again"]],
    ],
  );
  hub.remove("again");
  await settled();
  assert.equal(heard.at(-1)?.type, DELETE);
});

test("MonitorHub.subscribe() publishes no event for a connection that is as it was, but for one that came again", async () => {
  const hub = new MonitorHub();
  hub.update(own, connection("f1"));
  const { heard } = listen(hub);
  for (const id of ["f1", "f2", "f2"]) hub.update(own, connection(id));
  hub.remove("f1");
  hub.update(own, connection("f1"));
  await settled();
  assert.deepEqual(
    heard.slice(1).map(({ type, connections }) => [type, Object.keys(connections)]),
    [
      [UPDATE, ["f2"]],
      [DELETE, ["f1"]],
      [UPDATE, ["f1"]],
    ],
  );
});

test("MonitorHub.subscribe() publishes what has not changed to one who may see it only now", async () => {
  const hub = new MonitorHub();
  let isManager = false;
  const selector = create(MonitorScopeSelectorSchema);
  const events = hub.subscribe({ selector, sees: () => isManager, signal: new AbortController().signal });
  hub.update(foreign, connection("f1"));
  isManager = true;
  hub.update(foreign, connection("f1"));
  assert.deepEqual(Object.keys((await read(events)).at(-1)?.connections ?? {}), ["f1"]);
});

test("MonitorHub.subscribe() publishes to one that has gone what was established when it came, and nothing that waited", async () => {
  const hub = new MonitorHub();
  const gone = new AbortController();
  const selector = create(MonitorScopeSelectorSchema);
  const events = hub.subscribe({ selector, sees: () => true, signal: gone.signal });
  hub.update(own, connection("f1"));
  gone.abort();
  const late = hub.subscribe({ selector, sees: () => true, signal: gone.signal });
  assert.equal(hub.subscriberCount, 0, "who had gone before it was subscribed is not kept either");
  for (const [all, connections] of [
    [events, []],
    [late, ["f1"]],
  ] as const) {
    const heard: string[][] = [];
    for await (const event of all) heard.push(Object.keys(event.connections));
    assert.deepEqual(heard, [connections]);
  }
});

test("MonitorHub.remove() publishes no end of what was never shown", async () => {
  const hub = new MonitorHub();
  const { heard } = listen(hub);
  hub.remove("f1");
  await settled();
  assert.deepEqual(
    heard.map(({ type }) => type),
    [INITIAL_STATE_TRANSFER],
  );
});

test("MonitorHub.update() publishes no end of an id that another client's connection has, too", async () => {
  const hub = new MonitorHub();
  hub.update(own, connection("f1"));
  hub.update(own, connection("f1"), "f1 (2)");
  const { heard } = listen(hub);
  hub.update(own, connection("f2"), "f1 (2)");
  await settled();
  assert.deepEqual(
    heard.map(({ type, connections }) => [type, Object.keys(connections)]),
    [
      [INITIAL_STATE_TRANSFER, ["f1"]],
      [UPDATE, ["f2"]],
    ],
  );
});

test("MonitorHub.stop() ends every stream without an error", async () => {
  const hub = new MonitorHub();
  const { ended } = listen(hub);
  await settled(); // it waits for news by now
  hub.stop();
  await ended;
  assert.equal(hub.subscriberCount, 0);
});

const selectors: readonly {
  readonly says: string;
  readonly selector: MessageInitShape<typeof MonitorScopeSelectorSchema>;
  readonly fits: boolean;
}[] = [
  { says: "an own segment", selector: { pathSegments: [{ name: "m", id: "m1" }] }, fits: true },
  { says: "an id alone", selector: { pathSegments: [{ id: "c1" }] }, fits: true },
  { says: "a run", selector: { pathSegments: [{ name: "c" }, { name: "m" }] }, fits: true },
  { says: "a token, which is not looked at", selector: { pathSegments: [{ id: "c1", token: "guess" }] }, fits: true },
  { says: "a run with a gap", selector: { pathSegments: [{ name: "c" }, { name: "fwd" }] }, fits: false },
  { says: "another id", selector: { pathSegments: [{ name: "m", id: "m2" }] }, fits: false },
  { says: "a longer run than the path", selector: { pathSegments: [{}, {}, {}, {}] }, fits: false },
  { says: "its service", selector: { networkServices: ["other", "ns1"] }, fits: true },
  { says: "another service", selector: { networkServices: ["other"], pathSegments: [{ name: "m" }] }, fits: false },
];
for (const { says, selector, fits } of selectors) {
  test(`MonitorHub.subscribe() with ${says} ${fits ? "shows" : "hides"} the connection`, async () => {
    const hub = new MonitorHub();
    hub.update(own, connection("f1"));
    const { heard } = listen(hub, selector);
    await settled();
    assert.equal(Object.keys(heard[0]?.connections ?? {}).length, fits ? 1 : 0);
  });
}

function connection(id: string, state: State = State.UP) {
  const pathSegments = [
    { name: "c", id: "c1", token: "secret" },
    { name: "m", id: "m1", token: "secret" },
    { name: "fwd", id, token: "secret" },
  ];
  return create(ConnectionSchema, { id, state, networkService: "ns1", path: { index: 2, pathSegments } });
}

/** The same connection with something new; of about so many bytes. */
function changed(id: string, turn: number, bytes = 0) {
  return Object.assign(connection(id), { labels: { turn: `${turn}`, filler: "x".repeat(bytes) } });
}

/** A subscriber that sees all and has read nothing yet. */
function unread(hub: MonitorHub): AsyncIterable<ConnectionEvent> {
  const selector = create(MonitorScopeSelectorSchema);
  return hub.subscribe({ selector, sees: () => true, signal: new AbortController().signal });
}

/** What there is by now; more is added as it comes. */
async function read(events: AsyncIterable<ConnectionEvent>): Promise<ConnectionEvent[]> {
  const heard: ConnectionEvent[] = [];
  void (async () => {
    for await (const event of events) heard.push(event);
  })();
  await settled();
  return heard;
}

function listen(hub: MonitorHub, selector: MessageInitShape<typeof MonitorScopeSelectorSchema> = {}) {
  const heard: ConnectionEvent[] = [];
  const events = hub.subscribe({
    selector: create(MonitorScopeSelectorSchema, selector),
    sees: (owner) => owner.spiffeId === own.spiffeId,
    signal: new AbortController().signal,
  });
  const ended = (async () => {
    for await (const event of events) heard.push(event);
  })();
  return { heard, ended };
}

test("MonitorHub.subscribe() begins with the older of two clients' connections of one id", async () => {
  const hub = new MonitorHub();
  hub.update({ ...own, client: "a" }, changed("f1", 1));
  hub.update({ ...own, client: "b" }, changed("f1", 2), "f1 (2)");
  const [first] = await read(unread(hub));
  assert.equal(first?.connections["f1"]?.labels["turn"], "1");
});
