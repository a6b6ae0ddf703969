import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { type Connection, State } from "../../gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../../gen/networkservice_pb.ts";
import { toStatus } from "../grpc-status.ts";
import { behalfOf, kernelRequest, refreshOf } from "../testing/fakes.ts";
import { endStories, Story } from "../testing/story.ts";
import { type ActingPeer, isSameActing, mayAct, maySee, type Owner, ownerFor } from "./connection-owner.ts";

afterEach(endStories);

const [now, before, other] = ["spiffe://d/nsmgr-b", "spiffe://d/nsmgr-a", "spiffe://d/client"];
const made = (acting: ActingPeer, registeredWith: string) => ownerFor(acting, { spiffeId: registeredWith });

test("mayAct() is true for who made it, and of managers for the one of now", () => {
  for (const [peer, owner, manager, may] of [
    [other, made({ spiffeId: other }, now), now, true],
    [now, made({ spiffeId: before }, before), now, true],
    [before, made({ spiffeId: before }, before), now, true],
    [now, made({ spiffeId: other }, now), now, false],
    [other, made({ spiffeId: before }, before), now, false],
    [other, made({ spiffeId: before }, before), undefined, false],
  ] as const) {
    const what = `${peer} on what ${owner.spiffeId} made`;
    assert.equal(mayAct({ spiffeId: peer }, owner, { spiffeId: manager }), may, what);
    assert.equal(maySee(peer, owner, { spiffeId: manager }), may, what);
  }
});

const [victim, evil, near, far] = [
  "spiffe://d/v",
  "spiffe://d/evil",
  "spiffe://d/forwarder-2",
  "spiffe://d/forwarder-3",
];
const ofVictim = { spiffeId: before, isManager: true, client: victim };
const unidentified = { spiffeId: before, isManager: true, client: "" };
const fromFar = { spiffeId: before, isManager: true, client: near, origin: victim };

const rows: readonly (readonly [string, ActingPeer, Owner, boolean])[] = [
  ["the manager for the same client", { spiffeId: now, client: victim }, ofVictim, true],
  ["the manager for another client", { spiffeId: now, client: evil }, ofVictim, false],
  ["the manager for a client without identity", { spiffeId: now, client: "" }, ofVictim, false],
  ["the manager for itself", { spiffeId: now }, ofVictim, false],
  ["the former manager for another client", { spiffeId: before, client: evil }, ofVictim, false],
  ["a client for whom the manager did it", { spiffeId: victim }, ofVictim, false],
  ["one without identity on what another such has", { spiffeId: now, client: "" }, unidentified, true],
  ["another client on what one without identity has", { spiffeId: now, client: evil }, unidentified, false],
  ["any client on what was kept without one", { spiffeId: now, client: evil }, made({ spiffeId: now }, now), true],
  [
    "another client on what the manager made before we knew that it is the manager",
    { spiffeId: now, client: evil },
    { spiffeId: now, isManager: false, client: victim },
    false,
  ],
  ["a client of another node by another forwarder", { spiffeId: now, client: far, origin: victim }, fromFar, true],
  ["another client of that node", { spiffeId: now, client: near, origin: evil }, fromFar, false],
  [
    "who says that it calls for a client of this node",
    { spiffeId: now, client: evil, origin: victim },
    ofVictim,
    false,
  ],
  ["a client of this node in the name of one of another", { spiffeId: now, client: victim }, fromFar, false],
  [
    "a forwarder, for a client, on its own",
    { spiffeId: now, client: near, origin: evil },
    { ...ofVictim, client: near },
    true,
  ],
  ["that node's forwarder itself", { spiffeId: now, client: near }, fromFar, true],
  [
    "a peer that is no manager, whatever stands before it",
    { spiffeId: other, client: evil },
    { spiffeId: other, isManager: false, client: victim },
    true,
  ],
];
for (const [who, acting, owner, may] of rows) {
  test(`mayAct() is ${may} for ${who}`, () => {
    assert.equal(mayAct(acting, owner, { spiffeId: now }), may);
  });
}

test("maySee() shows the manager what it made for any client", () => {
  assert.equal(maySee(now, ofVictim, { spiffeId: now }), true);
});

test("mayAct() keeps the clients of a peer apart before we know that it is the manager", () => {
  const owner = { spiffeId: now, isManager: false, client: victim };
  const may = (acting: ActingPeer) => mayAct(acting, owner, { spiffeId: undefined });
  assert.deepEqual([may({ spiffeId: now, client: evil }), may({ spiffeId: now, client: victim })], [false, true]);
});

test("ownerFor() leaves the manager's what it had before a registration of ours is answered", () => {
  const had = (spiffeId: string) => ({ spiffeId, isManager: true });
  const unknown = { spiffeId: undefined };
  assert.equal(ownerFor({ spiffeId: now }, unknown, had(now)).isManager, true);
  assert.equal(ownerFor({ spiffeId: other }, unknown, had(now)).isManager, false);
  assert.equal(ownerFor({ spiffeId: now }, { spiffeId: other }, had(now)).isManager, false);
  assert.equal(ownerFor({ spiffeId: now }, unknown, { ...had(now), isManager: false }).isManager, false);
});

test("ownerFor() takes no peer for the manager before the first registration", () => {
  assert.deepEqual(ownerFor({ spiffeId: other }, { spiffeId: undefined }), { spiffeId: other, isManager: false });
});

test("the manager may neither refresh nor close what another peer has made", async () => {
  const story = new Story();
  const from = story.otherManager("client");
  const answer = await story.request(kernelRequest(), { from });
  story.vf.done.length = 0;
  assert.equal((await story.failed(refreshOf(answer))).code, "PERMISSION_DENIED");
  await assert.rejects(story.close(answer), { fault: { kind: "not-the-owner", id: answer.path?.pathSegments[2]?.id } });
  assert.deepEqual([story.vf.done, story.connections], [[], 1]);
  await story.close(answer, { from });
  assert.equal(story.connections, 0);
});

function connectionOf(message: NetworkServiceRequest): Connection {
  assert.ok(message.connection);
  return message.connection;
}

test("through the manager no client refreshes, changes, reselects or closes another one's connection", async () => {
  const story = new Story();
  const answer = await story.request(behalfOf(victim, kernelRequest()));
  const [record] = story.deps.connections.values();
  const established = record?.state;
  story.vf.done.length = 0;
  const reselect = refreshOf(answer);
  connectionOf(reselect).state = State.RESELECT_REQUESTED;
  const change = refreshOf(answer);
  connectionOf(change).networkService = "ns2";
  for (const attempt of [refreshOf(answer), change, reselect]) {
    const { code, message } = await story.failed(behalfOf(evil, attempt));
    assert.equal(code, "PERMISSION_DENIED");
    assert.match(message, /no sufficient privileges: the caller has no connection of this id$/);
  }
  const closing = story.close(connectionOf(behalfOf(evil, refreshOf(answer))));
  await assert.rejects(closing, (error) => toStatus(error).code === "PERMISSION_DENIED");
  assert.deepEqual([story.vf.done, story.outside.closes, story.connections], [[], [], 1]);
  assert.equal(record?.state, established);
  await story.request(behalfOf(victim, refreshOf(answer)));
  await story.close(connectionOf(behalfOf(victim, refreshOf(answer))));
  assert.equal(story.connections, 0);
});

test("a client continues with its connection through a new manager and after our restart, and another one does not", async () => {
  let story = new Story();
  const answer = await story.request(behalfOf(victim, kernelRequest()));
  story = story.successor();
  const from = story.newManager("nsmgr-b");
  const foreign = () => story.close(connectionOf(behalfOf(evil, refreshOf(answer))), { from });
  await assert.rejects(foreign(), { fault: { kind: "not-the-owner", id: answer.path?.pathSegments[2]?.id } });
  const again = await story.request(behalfOf(victim, refreshOf(answer)), { from });
  assert.deepEqual([again.path?.pathSegments[2]?.id, story.connections], [answer.path?.pathSegments[2]?.id, 1]);
  await assert.rejects(foreign(), { fault: { kind: "not-the-owner", id: answer.path?.pathSegments[2]?.id } });
  await story.close(connectionOf(behalfOf(victim, refreshOf(answer))), { from });
  assert.equal(story.connections, 0);
});

/** What the journal of an earlier version has of the victim's connection, found at a start. */
async function keptWithoutClient() {
  const story = new Story();
  const answer = await story.request(behalfOf(victim, kernelRequest()));
  for (const [key, entry] of story.journal.kept) {
    const { spiffeId, isManager } = entry.owner;
    story.journal.kept.set(key, { ...entry, owner: { spiffeId, isManager } });
  }
  return { story: story.successor(), answer };
}

test("what the journal has without a client is any client's of the manager until one refreshes it, and then that one's", async () => {
  const { story, answer } = await keptWithoutClient();
  await story.request(behalfOf(victim, refreshOf(answer)));
  assert.deepEqual([...story.journal.kept.values()][0]?.owner.client, victim);
  const closing = story.close(connectionOf(behalfOf(evil, refreshOf(answer))));
  await assert.rejects(closing, (error) => toStatus(error).code === "PERMISSION_DENIED");
  await story.close(connectionOf(behalfOf(victim, refreshOf(answer))));
});

test("two clients that come at once for what has none share nothing: the second is refused", async () => {
  const { story, answer } = await keptWithoutClient();
  const first = story.request(behalfOf(victim, refreshOf(answer)));
  const second = await story.failed(behalfOf(evil, refreshOf(answer)));
  await first;
  assert.equal(second.code, "PERMISSION_DENIED");
});

test("isSameActing() is true for one peer, client and origin", () => {
  const one = { spiffeId: now, client: near, origin: victim };
  for (const [other, isSame] of [
    [{ ...one }, true],
    [{ ...one, spiffeId: before }, false],
    [{ ...one, client: far }, false],
    [{ ...one, origin: evil }, false],
  ] as const) {
    assert.equal(isSameActing(one, other), isSame);
  }
});

test("another client does not end a connection by coming with its token, whatever it says of its own segment", async () => {
  const story = new Story();
  await story.request(behalfOf(victim, kernelRequest()));
  const { code, message } = await story.failed(behalfOf(evil, kernelRequest({}, "m2")));
  assert.deepEqual([code, story.connections], ["RESOURCE_EXHAUSTED", 1], message);
  await story.request(behalfOf(victim, kernelRequest({}, "m3"))); // With a manager that knows it no more.
  assert.equal(story.connections, 1);
});
