import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { clone, create } from "@bufbuild/protobuf";
import {
  type Connection,
  ConnectionEventSchema,
  ConnectionEventType,
  ConnectionSchema,
  MechanismSchema,
} from "../../gen/connection_pb.ts";
import { type NetworkServiceRequest, NetworkServiceRequestSchema } from "../../gen/networkservice_pb.ts";
import { onwardOf } from "../request/connections.ts";
import { kernelRequest, paperToken, refreshOf, settled } from "../testing/fakes.ts";
import { endpointReply } from "../testing/fakes-outside.ts";
import { endStories, Story } from "../testing/story.ts";
import { CONNECTION_BYTES, type Held, QUOTA, quotaExcess } from "./quota.ts";

afterEach(endStories);

const manager = { spiffeId: "spiffe://test/nsmgr-a", isManager: true };
const peer = (name: string) => ({ spiffeId: `spiffe://test/${name}`, isManager: false });
const many = (count: number, one: Partial<Held>): Held[] =>
  Array.from({ length: count }, (_, index) => ({
    id: `${one.owner?.spiffeId}-${one.holdsVf}-${index}`,
    owner: manager,
    holdsVf: true,
    bytes: 1024,
    ...one,
  }));
const requested: Held = { id: "requested", owner: manager, holdsVf: true, bytes: 1024 };

test("quotaExcess() lets one connection have no more than its bytes, whatever its owner", () => {
  assert.equal(quotaExcess([], { ...requested, bytes: CONNECTION_BYTES }), undefined);
  const used = CONNECTION_BYTES + 1;
  assert.deepEqual(quotaExcess([], { ...requested, bytes: used }), {
    limitOf: "connection-bytes",
    used,
    limit: CONNECTION_BYTES,
  });
});

for (const [who, owner] of [
  ["manager", manager],
  ["other", peer("a")],
] as const) {
  for (const holdsVf of [true, false]) {
    const { connections, bytes } = QUOTA[who][holdsVf ? "vf" : "noop"];
    const kind = `${who}'s connections ${holdsVf ? "with" : "without"} a VF`;

    test(`quotaExcess() bounds the number of the ${kind}, and refuses no refresh for it`, () => {
      const full = many(connections, { owner, holdsVf, bytes: 0 });
      const one = { ...requested, owner, holdsVf };
      assert.equal(quotaExcess(full.slice(1), one), undefined);
      const reported = { limitOf: "owner-connections", used: connections, limit: connections };
      assert.deepEqual(quotaExcess(full, one), reported);
      assert.equal(quotaExcess([...full, one], { ...one, bytes: 2048 }), undefined);
      assert.equal(
        quotaExcess(full, { ...one, holdsVf: !holdsVf }),
        undefined,
        "the other kind has a share of its own",
      );
    });

    test(`quotaExcess() bounds the bytes of the ${kind}, and refuses no refresh that does not grow`, () => {
      const one = { ...requested, owner, holdsVf, bytes: 2048 };
      const full = many(1, { owner, holdsVf, bytes: bytes - 2048 });
      assert.equal(quotaExcess([...full, one], one), undefined);
      const grown = { ...one, bytes: 3072 };
      const reported = { limitOf: "owner-bytes", used: bytes + 1024, limit: bytes };
      assert.deepEqual([quotaExcess([...full, one], grown), quotaExcess(full, grown)], [reported, reported]);
      assert.equal(quotaExcess([...full, grown], grown), undefined, "an earlier instance let it grow so far");
    });
  }
}

test("quotaExcess() takes all peers but the manager together, and leaves the manager alone", () => {
  const { connections, bytes } = QUOTA.others;
  const crowd = Array.from({ length: connections / 64 }, (_, index) =>
    many(64, { owner: peer(`p${index}`), bytes: bytes / connections }),
  ).flat();
  const excess = quotaExcess(crowd, { ...requested, owner: peer("new") });
  assert.deepEqual(excess, { limitOf: "others-connections", used: connections, limit: connections });
  const [, ...fewer] = crowd;
  const grown = { ...requested, owner: peer("new"), bytes: 2 * (bytes / connections) };
  assert.equal(quotaExcess(fewer, grown)?.limitOf, "others-bytes");
  assert.equal(quotaExcess(crowd, requested), undefined);
});

test("quotaExcess() counts what one manager made for the next, and nothing of a manager for another peer", () => {
  const full = many(QUOTA.manager.vf.connections, {});
  const next = { spiffeId: "spiffe://test/nsmgr-b", isManager: true };
  assert.equal(quotaExcess(full, { ...requested, owner: next })?.limitOf, "owner-connections");
  assert.equal(quotaExcess(full, { ...requested, owner: peer("nsmgr-a") }), undefined);
});

const behind = (client: string) => ({ ...manager, client });

for (const holdsVf of [true, false]) {
  const { connections, bytes } = QUOTA.manager[holdsVf ? "vf" : "noop"];
  const kind = holdsVf ? "with a VF" : "without a VF";

  test(`quotaExcess() leaves room behind the manager for other clients: connections ${kind}`, () => {
    const alone = Math.floor((2 * connections) / 3);
    const greedy = many(alone, { owner: behind("greedy"), holdsVf, bytes: 0 });
    const one = { ...requested, holdsVf, bytes: 0 };
    assert.equal(quotaExcess(greedy.slice(1), { ...one, owner: behind("greedy") }), undefined);
    assert.deepEqual(quotaExcess(greedy, { ...one, owner: behind("greedy") }), {
      limitOf: "client-connections",
      used: alone,
      limit: alone,
    });
    assert.equal(quotaExcess(greedy, { ...one, owner: behind("honest") }), undefined);
    assert.equal(quotaExcess(greedy, { ...one, owner: behind("") }), undefined);
    assert.equal(quotaExcess(greedy, one), undefined, "the manager itself");
    const later = many(9, { owner: behind("honest"), holdsVf, bytes: 0 });
    const held = greedy[0] as Held;
    assert.equal(quotaExcess([...greedy, ...later], held), undefined, "what it has stays, though its share has shrunk");
  });

  test(`quotaExcess() leaves room behind the manager for other clients: bytes of connections ${kind}`, () => {
    const alone = Math.floor((2 * bytes) / 3);
    const [one] = many(1, { owner: behind("greedy"), holdsVf, bytes: alone - 1024 });
    assert.ok(one);
    const more = { ...requested, holdsVf, owner: behind("greedy"), bytes: 1024 };
    assert.equal(quotaExcess([one], more), undefined);
    const reported = { limitOf: "client-bytes", used: alone + 1024, limit: alone };
    assert.deepEqual(quotaExcess([one], { ...more, bytes: 2048 }), reported);
    assert.equal(quotaExcess([one], { ...more, owner: behind("honest"), bytes: 65536 }), undefined);
  });
}

test("quotaExcess() has room for a stock connection of a client behind the manager, however many others there are", () => {
  const { bytes } = QUOTA.manager.noop;
  const names = Array.from({ length: 6 }, (_, index) => behind(`p${index}`));
  const crowd = many(1, { holdsVf: false, owner: behind("crowd"), bytes: bytes - 22 * 1024 });
  const others = names.flatMap((owner) => many(1, { holdsVf: false, owner, bytes: 1024 }));
  const one = { ...requested, holdsVf: false, owner: behind("honest"), bytes: 16 * 1024 };
  assert.equal(quotaExcess([...crowd, ...others], one), undefined);
  assert.equal(quotaExcess([...crowd, ...others], { ...one, bytes: 17 * 1024 })?.limitOf, "owner-bytes");
  const full = names.flatMap((owner) => many(21, { holdsVf: false, owner, bytes: 0 }));
  assert.equal(quotaExcess([...full, ...many(1, { holdsVf: false })], { ...one, bytes: 0 }), undefined);
});

test("quotaExcess() takes those behind the manager whose token cannot be read for one client", () => {
  const { connections } = QUOTA.manager.noop;
  const unknown = many(Math.floor((2 * connections) / 3), { owner: behind(""), holdsVf: false, bytes: 0 });
  const one = { ...requested, holdsVf: false };
  assert.equal(quotaExcess(unknown, { ...one, owner: behind("") })?.limitOf, "client-connections");
  assert.equal(quotaExcess(unknown, { ...one, owner: behind("known") }), undefined);
});

let story: Story;
beforeEach(() => {
  story = new Story();
});

function noopRequest(id: string, labels: Record<string, string> = {}): NetworkServiceRequest {
  const request = kernelRequest({ labels }, id);
  request.mechanismPreferences = [create(MechanismSchema, { cls: "LOCAL", type: "NOOP" })];
  return request;
}

const largeLabels = (count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`label-${index}`, "x".repeat(4_000)]));

test("request() refuses connections beyond their owner's number, serves others, and serves again after a Close", async () => {
  const from = story.otherManager("crowd");
  const limit = QUOTA.other.noop.connections;
  const answers = [];
  for (let index = 0; index < limit; index++) answers.push(await story.request(noopRequest(`m${index}`), { from }));
  const puts = story.journal.puts.length;
  const failures = [await story.failed(noopRequest("more"), { from }), await story.failed(noopRequest("m"), { from })];
  for (const { code, message } of failures) {
    assert.equal(code, "RESOURCE_EXHAUSTED");
    assert.match(message, /spiffe:\/\/test\/crowd: its owner has 16 connections .* may have 16; close/);
  }
  assert.deepEqual([story.journal.puts.length, story.connections], [puts, limit]);
  const reported = story.log.events.filter(({ event }) => event === "quota-reached");
  assert.deepEqual(
    reported.map(({ fields }) => fields),
    [{ owner: "spiffe://test/crowd", limitOf: "owner-connections", used: limit, limit }],
  );
  for (const answer of answers) await story.request(noopRefresh(answer), { from });
  await story.request(noopRequest("of the manager"));
  const [first] = answers;
  if (first) await story.close(first, { from });
  await story.request(noopRequest("again"), { from });
});

function noopRefresh(answer: Connection): NetworkServiceRequest {
  return create(NetworkServiceRequestSchema, { connection: answer });
}

test("request() counts a connection that changes its mechanism as what it is now", async () => {
  const answer = await story.request(noopRequest("m1"));
  const counted = () => [...story.deps.connections.values()].map(({ holdsVf }) => holdsVf);
  assert.deepEqual(counted(), [false]);
  delete answer.mechanism;
  await story.request(refreshOf(answer));
  assert.deepEqual([counted(), story.vf.done.at(-1)], [[true], "attach nsm-1"]);
});

/** A NOOP Request that this pod makes through the manager. */
function behindManager(pod: string, id: string): NetworkServiceRequest {
  const message = noopRequest(id);
  const [client] = message.connection?.path?.pathSegments ?? [];
  Object.assign(client ?? {}, { token: paperToken(`spiffe://test/${pod}`, "nsmgr-a", 2e12) });
  return message;
}

test("request() leaves other pods behind the manager their part, also after a restart, and serves again after a Close", async () => {
  const answers = [];
  for (let nth = 0; nth < 85; nth++) answers.push(await story.request(behindManager("greedy", `g${nth}`)));
  const refusal = await story.failed(behindManager("greedy", "g"));
  assert.equal(refusal.code, "RESOURCE_EXHAUSTED");
  assert.match(
    refusal.message,
    /of spiffe:\/\/test\/greedy behind the manager: its client has 85 connections .* have 85 now/,
  );
  const honest = await story.request(behindManager("honest", "h"));
  await story.request(refreshOf(answers[0] ?? assert.fail()));
  const kept = [...story.journal.kept.values()].map(({ owner }) => owner.client);
  assert.deepEqual([kept.length, new Set(kept)], [86, new Set(["spiffe://test/greedy", "spiffe://test/honest"])]);
  await story.close(honest);
  await story.close(answers[0] ?? assert.fail());
  await story.request(behindManager("greedy", "g"));
  const reported = story.log.of("quota-reached").map(({ owner, limitOf }) => `${owner}: ${limitOf}`);
  assert.deepEqual(reported, ["spiffe://test/greedy behind the manager: client-connections"]);
});

test("request() refuses a connection that is too large before anything is written or touched", async () => {
  for (const message of [noopRequest("m1", largeLabels(17)), kernelRequest({ labels: largeLabels(17) })]) {
    const failure = await story.failed(message);
    assert.equal(failure.code, "RESOURCE_EXHAUSTED");
    assert.match(failure.message, /has \d+ bytes, and one connection may have 65536; shorten/);
  }
  assert.deepEqual([story.journal.puts, story.vf.done, story.connections], [[], [], 0]);
});

test("request() undoes a connection that its endpoint makes too large", async () => {
  story.outside.replies.set(
    "tcp://nse-1:1",
    endpointReply("nse-1", (answer) => Object.assign(answer.labels, largeLabels(17))),
  );
  assert.equal((await story.failed(kernelRequest())).code, "RESOURCE_EXHAUSTED");
  assert.deepEqual(story.vf.done, ["take", "bind", "detach", "give-back"]);
  assert.deepEqual([story.outside.closes.length, story.connections], [1, 0]);
});

test("request() refuses a refresh that grows too large, keeps what is established, and none of the growth", async () => {
  const first = await story.request(kernelRequest());
  const [before] = story.deps.connections.values();
  const { bytes, state } = before ?? assert.fail();
  story.vf.done.length = 0;
  const grown = refreshOf(first);
  Object.assign(grown.connection?.labels ?? {}, largeLabels(17));
  assert.equal((await story.failed(grown)).code, "RESOURCE_EXHAUSTED");
  const [record] = story.deps.connections.values();
  assert.deepEqual([record?.bytes, record?.state.connection, story.vf.done], [bytes, state.connection, []]);
  assert.equal(Object.keys((record && onwardOf(record))?.connection.labels ?? {}).length, 1);
  await story.request(refreshOf(first));
});

test("request() writes nothing for a token that cannot be had", async () => {
  await story.request(kernelRequest());
  const puts = story.journal.puts.length;
  const failure = await story.failed(kernelRequest({}, "other"), { from: story.otherManager("other") });
  assert.equal(failure.code, "RESOURCE_EXHAUSTED");
  assert.deepEqual([story.journal.puts.length, story.connections], [puts, 1]);
});

test("what an endpoint reports of a connection counts for its owner, and means nothing where there is no room for it", async () => {
  await story.request(kernelRequest());
  const heard = story.listen();
  await settled();
  const [record] = story.deps.connections.values();
  assert.ok(record);
  const { bytes, state } = record;
  const request = async (prefixes: number) => {
    const reported = clone(ConnectionSchema, state.connection);
    reported.context?.ipContext?.excludedPrefixes.push(
      ...Array<string>(prefixes).fill("2001:db8:1234:5678:9abc:def0::/96"),
    );
    const event = { type: ConnectionEventType.UPDATE, connections: { [reported.id]: reported } };
    story.outside.watches[0]?.push(create(ConnectionEventSchema, event));
    await settled();
  };
  await request(4000);
  assert.deepEqual([heard.length, record.bytes], [1, bytes], "the initial transfer alone");
  await request(400);
  assert.equal(heard.length, 2);
  assert.ok(record.bytes > bytes);
});
