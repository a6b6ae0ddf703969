import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { type Connection, State } from "../../gen/connection_pb.ts";
import { type NetworkServiceRequest, NetworkServiceRequestSchema } from "../../gen/networkservice_pb.ts";
import { NetdevError } from "../../netdev/index.ts";
import { RpcError } from "../../rpc/index.ts";
import { kernelRequest, NETNS, PaperFd, paperVfio, refreshOf, settled, TOKEN } from "../testing/fakes.ts";
import { endpointReply } from "../testing/fakes-outside.ts";
import { endStories, Story } from "../testing/story.ts";
import { request } from "./request.ts";

afterEach(endStories);

let story: Story;
beforeEach(() => {
  story = new Story();
});

test("request() gives a first client its interface after the endpoint has agreed", async () => {
  const answer = await story.request(kernelRequest());
  assert.deepEqual(story.vf.done, ["take", "bind", "attach nsm-1"]);
  assert.equal(answer.id, "m1");
  assert.equal(answer.path?.index, 1);
  assert.deepEqual(
    answer.path?.pathSegments.map(({ name }) => name),
    ["client", "nsmgr", "fwd", "nse-1"],
  );
  assert.equal(answer.networkServiceEndpointName, "nse-1");
  assert.equal(answer.payload, "ETHERNET");
  assert.equal(answer.state, State.UP);
  assert.deepEqual(answer.mechanism?.parameters, {
    inodeURL: NETNS,
    name: "nsm-1",
    tokenID: TOKEN,
    pciAddress: "0000:3b:02.1",
  });
  assert.equal(answer.path?.pathSegments[2]?.metrics["server_interface"], "KERNEL/nsm-1");
});

for (const says of ["prefers", "has"] as const) {
  test(`request() offers the endpoint NOOP and nothing of the mechanism that the client ${says}`, async () => {
    await story.request(says === "has" ? ownMechanism() : kernelRequest());
    const [requested] = story.outside.requests;
    assertOffersNoop(requested);
  });
}

function assertOffersNoop(requested: NetworkServiceRequest | undefined): void {
  assert.equal(requested?.connection?.mechanism, undefined);
  assert.deepEqual(
    requested?.mechanismPreferences.map(({ cls, type }) => `${cls} ${type}`),
    ["REMOTE NOOP"],
  );
  assert.equal(requested?.connection?.path?.index, 2);
  assert.equal(requested?.connection?.networkServiceEndpointName, "nse-1");
}

/** A first Request that wants this mechanism and no other. */
function ownMechanism(): NetworkServiceRequest {
  const request = kernelRequest();
  const [mechanism] = request.mechanismPreferences;
  if (request.connection && mechanism) request.connection.mechanism = mechanism;
  return request;
}

for (const [how, context] of [
  ["unchanged", "kept"],
  ["to an endpoint that gives no context", "none"],
  ["without the context that the endpoint had given", "forgotten"],
] as const) {
  test(`request() of a refresh ${how} touches nothing, queries no registry and logs nothing at info`, async () => {
    const noContext = endpointReply("nse-1", (connection) => delete connection.context);
    if (context === "none") story.outside.replies.set("tcp://nse-1:1", noContext);
    const first = await story.request(kernelRequest());
    if (context === "forgotten") delete first.context;
    await assertUntouched(first);
  });
}

async function assertUntouched(first: Connection): Promise<void> {
  const finds = story.outside.finds.length;
  story.vf.done.length = 0;
  const reported = story.log.events.length;
  const again = await story.request(refreshOf(first));
  assert.deepEqual(story.vf.done, []);
  assert.equal(story.outside.finds.length, finds);
  assert.deepEqual(story.log.events.slice(reported), []);
  assert.equal(story.outside.requests[1]?.connection?.mechanism?.type, "NOOP");
  assert.equal(again.path?.pathSegments[2]?.id, first.path?.pathSegments[2]?.id);
  assert.equal(story.journal.puts.filter(({ stage }) => stage === "ready").length, 1);
  assert.equal(story.outside.watches.length, 1);
}

test("request() of a refresh applies what the endpoint changed", async () => {
  const first = await story.request(kernelRequest());
  story.vf.done.length = 0;
  story.outside.replies.set(
    "tcp://nse-1:1",
    endpointReply("nse-1", ({ context }) => context?.ipContext?.srcIpAddrs.push("10.0.0.3/32")),
  );
  await story.request(refreshOf(first));
  assert.deepEqual(story.vf.done, ["attach nsm-1"]);
});

for (const which of ["gives a context where there was none", "withdraws its context"] as const) {
  test(`request() of a refresh in which the endpoint ${which} applies that`, async () => {
    const replies = [endpointReply("nse-1", (connection) => delete connection.context), endpointReply("nse-1")];
    const [before, later] = which === "withdraws its context" ? replies.reverse() : replies;
    assert.ok(before && later);
    story.outside.replies.set("tcp://nse-1:1", before);
    const first = await story.request(kernelRequest());
    story.vf.done.length = 0;
    story.outside.replies.set("tcp://nse-1:1", later);
    await story.request(refreshOf(first));
    assert.deepEqual(story.vf.done, ["attach nsm-1"]);
  });
}

test("request() undoes everything when the endpoint refuses, and keeps its code and text", async () => {
  story.outside.replies.set("tcp://nse-1:1", () => {
    throw new RpcError("RESOURCE_EXHAUSTED", "no address left");
  });
  const failure = await story.failed(kernelRequest());
  assert.equal(failure.code, "RESOURCE_EXHAUSTED");
  assert.equal(
    failure.message,
    "0. An error during select endpoint nse-1 --> no address left: all candidates have failed: " +
      "cannot support any of the requested mechanism",
  );
  assert.deepEqual(story.vf.done, ["take", "bind", "detach", "give-back"]);
  assert.equal(story.connections, 0);
  assert.equal(PaperFd.open, 0);
  const own = await story.failed(ownMechanism());
  assert.match(own.message, /all candidates have failed$/, "no other mechanism was to be tried");
});

test("request() whose time is up says which step was busy, and not that the time is up", async () => {
  const caller = new AbortController();
  const attach = story.vf.attach.bind(story.vf);
  story.vf.attach = async (...args) => {
    caller.abort(new RpcError("DEADLINE_EXCEEDED", "the time is up"));
    await attach(...args);
  };
  const busy = new NetdevError({ kind: "busy", link: "VF 1", step: "move", answer: "EBUSY", tries: 3, afterMs: 9 });
  story.vf.failing.set("attach", busy);
  assert.equal((await story.failed(kernelRequest(), { signal: caller.signal })).message, busy.message);
});

test("request() that finds no endpoint does not wait for the client's namespace", async () => {
  story.manager.fds.sent.clear();
  story.outside.endpoints = [];
  let code: string | undefined;
  const failing = story.failed(kernelRequest()).then((failure) => {
    code = failure.code;
  });
  await settled();
  assert.equal(code, "NOT_FOUND");
  await failing;
});

test("request() closes the endpoint again when the node fails after it had agreed", async () => {
  story.vf.failing.set("attach", new Error("move failed"));
  const failure = await story.failed(kernelRequest());
  assert.match(failure.message, /^move failed: cannot support/);
  assert.equal(story.outside.closes.length, 1);
  assert.deepEqual(story.vf.done, ["take", "bind", "attach nsm-1 fails", "detach", "give-back"]);
});

test("request() closes at an endpoint that was too slow to agree", async () => {
  story.outside.replies.set("tcp://nse-1:1", () => {
    throw new RpcError("DEADLINE_EXCEEDED", "no answer in time");
  });
  assert.equal((await story.failed(kernelRequest())).code, "DEADLINE_EXCEEDED");
  assert.equal(story.outside.closes.length, 1);
  assert.equal(PaperFd.open, 0);
});

test("request() tries the next candidate when one fails", async () => {
  story.outside.endpoints.unshift({ name: "dead", networkServiceNames: ["ns1"], url: "tcp://dead:1" });
  const answer = await story.request(kernelRequest());
  assert.equal(answer.networkServiceEndpointName, "nse-1");
});

test("request() of a caller that leaves is undone", async () => {
  const caller = new AbortController();
  story.outside.replies.set("tcp://nse-1:1", async (request) => {
    caller.abort(new RpcError("CANCELLED", "the caller has gone"));
    return await endpointReply("nse-1")(request);
  });
  const message = kernelRequest();
  message.mechanismPreferences.push(...noop());
  const failure = await story.failed(message, { signal: caller.signal });
  assert.equal(failure.code, "CANCELLED");
  await settled();
  assert.ok(
    story.journal.puts.every(({ mechanism }) => mechanism === "KERNEL"),
    "no other mechanism is tried",
  );
  assert.deepEqual(story.vf.done.slice(-2), ["detach", "give-back"]);
  assert.equal(story.outside.closes.length, 1);
  assert.equal(story.connections, 0);
});

test("request() does not touch a connection of another peer, not even to reselect", async () => {
  const first = await story.request(kernelRequest());
  const otherManager = story.otherManager("evil");
  const theft = refreshOf(first);
  if (theft.connection) theft.connection.state = State.RESELECT_REQUESTED;
  const failure = await story.failed(theft, { from: otherManager });
  assert.equal(failure.code, "PERMISSION_DENIED");
  assert.equal(story.connections, 1);
  assert.ok(!story.vf.done.includes("detach"));
});

test("request() lets a new manager continue with what the one before it made", async () => {
  const first = await story.request(kernelRequest());
  const next = story.newManager("nsmgr-b");
  await story.request(refreshOf(first), { from: next });
  const old = await story.failed(refreshOf(first));
  assert.equal(old.code, "PERMISSION_DENIED");
});

for (const [hears, closeFailure] of [
  ["takes", undefined],
  ["does not take", new RpcError("UNAVAILABLE", "no")],
] as const) {
  test(`request() to reselect takes down what is established and begins again, where the endpoint ${hears} the Close`, async () => {
    story.outside.closeFailure = closeFailure;
    await reselectOnce();
  });
}

async function reselectOnce(): Promise<void> {
  const first = await story.request(kernelRequest());
  const reselect = refreshOf(first);
  const { connection } = reselect as { connection: Connection };
  connection.state = State.RESELECT_REQUESTED;
  connection.networkServiceEndpointName = "";
  delete connection.mechanism;
  const answer = await story.request(reselect);
  assert.equal(answer.state, State.UP);
  assert.equal(story.outside.closes.length, 1);
  assert.deepEqual(story.vf.done.slice(3), ["detach", "give-back", "take", "bind", "attach nsm-1"]);
}

test("request() of a client that restarted does not lose what it has because its endpoint is away", async () => {
  const first = await story.request(kernelRequest());
  story.vf.done.length = 0;
  story.outside.replies.clear();
  const message = refreshOf(first);
  delete message.connection?.mechanism;
  message.mechanismPreferences.push(...noop());
  assert.equal((await story.failed(message)).code, "UNAVAILABLE");
  assert.deepEqual([story.vf.done, story.connections], [[], 1]);
});

test("request() of a client that restarted keeps its virtual function", async () => {
  const first = await story.request(kernelRequest());
  story.vf.done.length = 0;
  const restarted = refreshOf(first);
  delete restarted.connection?.mechanism;
  await story.request(restarted);
  assert.deepEqual(story.vf.done, []);
});

test("request() refuses a token that another connection holds", async () => {
  await story.request(kernelRequest());
  const other = kernelRequest({}, "m2");
  const first = other.connection?.path?.pathSegments[0];
  if (first) first.id = "c2";
  const failure = await story.failed(other);
  assert.equal(failure.code, "RESOURCE_EXHAUSTED");
  assert.ok(!failure.message.includes(TOKEN));
  assert.equal(story.connections, 1);
});

test("request() with the token of a connection that is just ending waits for its end", async () => {
  const answer = await story.request(kernelRequest());
  const ending = Promise.withResolvers<void>();
  const detach = story.vf.detach.bind(story.vf);
  story.vf.detach = () => ending.promise.then(() => detach());
  const closed = story.close(answer);
  const other = kernelRequest({}, "m2");
  const first = other.connection?.path?.pathSegments[0];
  if (first) first.id = "c2";
  const served = story.request(other);
  await new Promise((resolve) => setImmediate(resolve));
  assert.ok(!story.vf.done.includes("detach"));
  ending.resolve();
  await Promise.all([closed, served]);
  assert.equal(story.connections, 1);
  assert.deepEqual(story.vf.done.slice(3), ["detach", "give-back", "take", "bind", "attach nsm-1"]);
});

test("request() of a client that comes back on a new path from another namespace takes over from its old one", async () => {
  await story.request(kernelRequest());
  const manager = story.newManager("nsmgr-b");
  const elsewhere = kernelRequest({}, "m2");
  manager.fds.sent.add("inode://4/77");
  Object.assign(elsewhere.mechanismPreferences[0]?.parameters ?? {}, { inodeURL: "inode://4/77" });
  const answer = await story.request(elsewhere, { from: manager });
  assert.equal(answer.path?.pathSegments[2]?.id, "f2");
  assert.equal(story.connections, 1);
  assert.deepEqual(story.vf.done.slice(3), ["detach", "give-back", "take", "bind", "attach nsm-1"]);
  const otherManager = story.otherManager("evil");
  assert.equal((await story.failed(kernelRequest({}, "m3"), { from: otherManager })).code, "RESOURCE_EXHAUSTED");
});

test("request() follows a client into another namespace", async () => {
  const first = await story.request(kernelRequest());
  story.vf.done.length = 0;
  const moved = refreshOf(first);
  const elsewhere = "inode://4/77";
  story.manager.fds.sent.add(elsewhere);
  if (moved.connection?.mechanism) moved.connection.mechanism.parameters["inodeURL"] = elsewhere;
  const answer = await story.request(moved);
  assert.deepEqual(story.vf.done, ["detach", "attach nsm-1"]);
  assert.equal(answer.mechanism?.parameters["inodeURL"], elsewhere);
  assert.equal(PaperFd.open, 1);
});

test("request() for a namespace that was not sent fails within the bound", async () => {
  story.manager.fds.sent.clear();
  const failing = story.failed(kernelRequest());
  await settled();
  await story.clock.pass(5_000);
  const failure = await failing;
  assert.equal(failure.code, "INVALID_ARGUMENT");
  assert.match(failure.message, /Cannot reach the client's network namespace inode:\/\/4\/4026533012/);
  assert.equal(story.connections, 0);
});

test("request() drops the connection's own copy of a namespace when no call names it any more", async () => {
  await Promise.all([story.request(kernelRequest()), story.failed(kernelRequest({}, "m2"), { tokenMs: -1 })]);
  assert.deepEqual(story.manager.fds.released, [NETNS]);
});

test("request() for a mechanism that is not known, or not to be had, says so", async () => {
  const request = kernelRequest();
  request.mechanismPreferences = request.mechanismPreferences.map((mechanism) => ({ ...mechanism, type: "MEMIF" }));
  assert.equal((await story.failed(request)).message, "cannot support any of the requested mechanism");
  const own = kernelRequest({ mechanism: { cls: "LOCAL", type: "MEMIF" } });
  assert.equal((await story.failed(own)).message, "unsupported mechanism");
  const vfio = kernelRequest();
  vfio.mechanismPreferences = vfio.mechanismPreferences.map((mechanism) => ({ ...mechanism, type: "VFIO" }));
  const failure = await story.failed(vfio);
  assert.match(failure.message, /Cannot give mechanism VFIO.*: cannot support any of the requested mechanism/);
});

test("request() runs the Requests of one connection one after the other, those of two at once", async () => {
  const gate = Promise.withResolvers<void>();
  let requested = 0;
  story.outside.replies.set("tcp://nse-1:1", async (request) => {
    requested += 1;
    await gate.promise;
    return await endpointReply("nse-1")(request);
  });
  const first = await (async () => {
    const running = [story.request(noopRequest("m1")), story.request(noopRequest("m2"))];
    await settled();
    assert.equal(requested, 2);
    gate.resolve();
    return await Promise.all(running);
  })();
  assert.equal(first.length, 2);
});

test("a connection that is not refreshed ends when its caller's token does", async () => {
  await story.request(kernelRequest(), { tokenMs: 60_000, deadlineMs: 15_000 });
  await story.clock.pass(44_000);
  assert.equal(story.connections, 1);
  await story.clock.pass(1_500);
  assert.equal(story.connections, 0);
  assert.deepEqual(story.vf.done.slice(-2), ["detach", "give-back"]);
  assert.equal(story.outside.closes.length, 1);
});

function noopRequest(id: string) {
  const request = kernelRequest({}, id);
  request.mechanismPreferences = request.mechanismPreferences.map((mechanism) => ({
    ...mechanism,
    type: "NOOP",
    parameters: {},
  }));
  return request;
}

function noop() {
  return create(NetworkServiceRequestSchema, { mechanismPreferences: [{ cls: "LOCAL", type: "NOOP" }] })
    .mechanismPreferences;
}

test("request() that finds no endpoint writes nothing where nothing of the node is held", async () => {
  story.outside.endpoints = [];
  assert.equal((await story.failed(noopRequest("m1"))).code, "NOT_FOUND");
  assert.deepEqual([story.journal.puts, story.outside.requests, story.connections], [[], [], 0]);
});

test("request() writes what is intended before an endpoint gets the Request, also where nothing of the node is held", async () => {
  story.journal.failing.add("preparing");
  await story.failed(noopRequest("m1"));
  const stages = story.journal.puts.map(({ stage }) => stage);
  assert.deepEqual([stages, story.outside.requests, PaperFd.open], [["preparing", "reclaiming"], [], 0]);
  story.journal.failing.clear();
  await story.request(noopRequest("m1"));
  assert.deepEqual([story.outside.finds.length, story.outside.requests.length], [4, 1]);
});

/** The client wants nothing of the node any more. */
function noopRefresh(answer: Connection): NetworkServiceRequest {
  const message = refreshOf(answer);
  delete message.connection?.mechanism;
  message.mechanismPreferences = noop();
  return message;
}

test("request() for another mechanism goes to the endpoint that serves, which hears what it agreed to", async () => {
  const first = await story.request(kernelRequest());
  const finds = story.outside.finds.length;
  await story.request(noopRefresh(first));
  assert.deepEqual([story.outside.finds.length, story.outside.closes], [finds, []]);
  assert.equal(story.outside.requests[1]?.connection?.mechanism?.type, "NOOP");
  assert.deepEqual(story.vf.done.slice(3), ["detach", "give-back"]);
});

test("request() for another mechanism writes it before another endpoint is looked for", async () => {
  const first = await story.request(kernelRequest());
  const finds = story.outside.finds.length;
  const release = story.journal.holdBack("preparing");
  story.outside.endpoints.push({ name: "nse-2", networkServiceNames: ["ns1"], url: "tcp://nse-1:1" });
  const message = noopRefresh(first);
  if (message.connection) message.connection.networkServiceEndpointName = "nse-2";
  const changed = story.request(message);
  await settled();
  assert.deepEqual([story.journal.puts.at(-1)?.mechanism, story.outside.finds.length], ["NOOP", finds]);
  release();
  await changed;
});

test("request() counts what the endpoint has added, and VFIO as what holds a VF", async () => {
  story.outside.replies.set(
    "tcp://nse-1:1",
    endpointReply("nse-1", ({ labels }) => Object.assign(labels, { long: "x".repeat(4_000) })),
  );
  const message = kernelRequest();
  for (const mechanism of message.mechanismPreferences) mechanism.type = "VFIO";
  await request({ ...story.deps, mechanisms: { VFIO: paperVfio } }, message, story.manager.call());
  const { holdsVf, bytes = 0 } = story.deps.connections.get("f1") ?? {};
  assert.deepEqual([holdsVf, bytes > 4_000], [true, true]);
});
