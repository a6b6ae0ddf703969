import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { type Connection, State } from "../../gen/connection_pb.ts";
import { NetworkServiceRequestSchema } from "../../gen/networkservice_pb.ts";
import { RpcError } from "../../rpc/index.ts";
import { kernelRequest, NETNS, PaperFd, refreshOf, settled, TOKEN } from "../testing/fakes.ts";
import { endpointReply } from "../testing/fakes-outside.ts";
import { endStories, Story } from "../testing/story.ts";

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

test("request() offers the endpoint NOOP and nothing of the client's mechanism", async () => {
  await story.request(kernelRequest());
  const [asked] = story.outside.requests;
  assert.equal(asked?.connection?.mechanism, undefined);
  assert.deepEqual(
    asked?.mechanismPreferences.map(({ cls, type }) => `${cls} ${type}`),
    ["REMOTE NOOP"],
  );
  assert.equal(asked?.connection?.path?.index, 2);
  assert.equal(asked?.connection?.networkServiceEndpointName, "nse-1");
});

test("request() of an unchanged refresh touches nothing, queries no registry and logs nothing at info", async () => {
  const first = await story.request(kernelRequest());
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
});

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
  const failure = await story.failed(kernelRequest(), { signal: caller.signal });
  assert.equal(failure.code, "CANCELLED");
  await settled();
  assert.deepEqual(story.vf.done.slice(-2), ["detach", "give-back"]);
  assert.equal(story.outside.closes.length, 1);
  assert.equal(story.connections, 0);
});

test("request() does not touch a connection of another peer, not even to reselect", async () => {
  const first = await story.request(kernelRequest());
  const stranger = story.stranger("evil");
  const theft = refreshOf(first);
  if (theft.connection) theft.connection.state = State.RESELECT_REQUESTED;
  const failure = await story.failed(theft, { from: stranger });
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

test("request() to reselect takes down what is established and begins again", async () => {
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
});

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

test("request() of a client that comes back on a new path takes over from its old one", async () => {
  await story.request(kernelRequest());
  const manager = story.newManager("nsmgr-b");
  const answer = await story.request(kernelRequest({}, "m2"), { from: manager });
  assert.equal(answer.path?.pathSegments[2]?.id, "f2");
  assert.equal(story.connections, 1);
  assert.deepEqual(story.vf.done.slice(3), ["detach", "give-back", "take", "bind", "attach nsm-1"]);
  const stranger = story.stranger("evil");
  assert.equal((await story.failed(kernelRequest({}, "m3"), { from: stranger })).code, "RESOURCE_EXHAUSTED");
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
  let asked = 0;
  story.outside.replies.set("tcp://nse-1:1", async (request) => {
    asked += 1;
    await gate.promise;
    return await endpointReply("nse-1")(request);
  });
  const first = await (async () => {
    const running = [story.request(noopRequest("m1")), story.request(noopRequest("m2"))];
    await settled();
    assert.equal(asked, 2);
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
