import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { ConnectionSchema, State } from "../../gen/connection_pb.ts";
import { kernelRequest, paperToken, refreshOf, settled } from "../testing/fakes.ts";
import { endpointReply } from "../testing/fakes-outside.ts";
import { endStories, Story } from "../testing/story.ts";
import { request } from "./request.ts";

afterEach(endStories);

let story: Story;
beforeEach(() => {
  story = new Story();
});

test("request() answers, and notifies watchers, only when the connection is on disk as ready", async () => {
  const release = story.journal.holdBack("ready");
  const heard = story.listen();
  let isAnswered = false;
  const answer = story.request(kernelRequest()).then(() => {
    isAnswered = true;
  });
  await settled();
  assert.equal(story.journal.puts.at(-1)?.stage, "ready");
  assert.deepEqual([isAnswered, heard.length], [false, 1], "the initial transfer alone");
  release();
  await answer;
  await settled();
  assert.equal(heard.length, 2);
});

test("request() touches nothing before the connection is on disk as preparing", async () => {
  const release = story.journal.holdBack("preparing");
  const answer = story.request(kernelRequest());
  await settled();
  assert.deepEqual(
    [story.journal.puts.map(({ stage }) => stage), story.vf.done, story.outside.requests.length],
    [["preparing"], ["take"], 0],
  );
  release();
  await answer;
  assert.deepEqual(story.vf.done, ["take", "bind", "attach nsm-1"]);
});

test("request() of a refresh that changed something writes what it is now", async () => {
  const first = await story.request(kernelRequest());
  story.outside.replies.set(
    "tcp://nse-1:1",
    endpointReply("nse-1", ({ context }) => context?.ipContext?.srcIpAddrs.push("10.0.0.3/32")),
  );
  await story.request(refreshOf(first));
  const ready = story.journal.puts.filter(({ stage }) => stage === "ready");
  assert.equal(ready.length, 2);
  const kept = fromBinary(ConnectionSchema, ready[1]?.connection ?? new Uint8Array());
  assert.ok(kept.context?.ipContext?.srcIpAddrs.includes("10.0.0.3/32"));
});

test("request() of a refresh configures the interface again where its state cannot be read", async () => {
  const first = await story.request(kernelRequest());
  story.vf.done.length = 0;
  story.vf.failing.set("stands", new Error("netlink: the dump was interrupted"));
  await story.request(refreshOf(first));
  assert.deepEqual(story.vf.done, ["attach nsm-1"]);
});

test("request() of a refresh writes whose the connection is when we have registered with its caller meanwhile", async () => {
  const unregistered = { ...story.deps, manager: { spiffeId: undefined } };
  const first = await request(unregistered, kernelRequest(), story.manager.call());
  await story.request(refreshOf(first));
  const ready = story.journal.puts.filter(({ stage }) => stage === "ready");
  assert.deepEqual(
    ready.map(({ owner }) => owner.isManager),
    [false, true],
  );
});

test("the loss of an endpoint shows the connection as its last refresh left it", async () => {
  const first = await story.request(kernelRequest());
  const change: Parameters<typeof endpointReply>[1] = ({ context }) => {
    if (context) context.MTU = 1_400;
  };
  story.outside.replies.set("tcp://nse-1:1", endpointReply("nse-1", change));
  await story.request(refreshOf(first));
  const heard = story.listen();
  story.outside.watches[0]?.end();
  await settled();
  const { state, context } = heard.at(-1)?.connections["f1"] ?? {};
  assert.deepEqual([state, context?.MTU], [State.DOWN, 1_400]);
});

test("request() of a refresh writes by whom a client of another node comes now", async () => {
  const token = (path: string) => paperToken(`spiffe://test/${path}`, "nsmgr", story.clock.now() + 600_000);
  const by = (forwarder: string) => [
    { name: "client", id: "c1", token: token("nsc") },
    { name: "forwarder", id: "f0", token: token(forwarder) },
  ];
  const [first, second] = [by("forwarder-2"), by("forwarder-3")];
  const path = { index: 2, pathSegments: [...first, { name: "nsmgr", id: "m1" }] };
  const answer = await story.request(kernelRequest({ path }));
  const refresh = refreshOf(answer);
  const segments = refresh.connection?.path?.pathSegments ?? [];
  for (const [at, segment] of second.entries()) Object.assign(segments[at] ?? {}, segment);
  await story.request(refresh);
  const { client, origin } = story.journal.puts.at(-1)?.owner ?? {};
  assert.deepEqual([client, origin], ["spiffe://test/forwarder-3", "spiffe://test/nsc"]);
});

test("request() of a refresh writes nothing where an answer has other metrics, and its labels in another order", async () => {
  let nth = 0;
  const change: Parameters<typeof endpointReply>[1] = (connection) => {
    nth += 1;
    connection.labels = nth === 1 ? { a: "1", b: "2" } : { b: "2", a: "1" };
    for (const segment of connection.path?.pathSegments ?? []) segment.metrics = { requests: String(nth) };
  };
  story.outside.replies.set("tcp://nse-1:1", endpointReply("nse-1", change));
  const first = await story.request(kernelRequest());
  const puts = story.journal.puts.length;
  await story.request(refreshOf(first));
  assert.equal(story.journal.puts.length, puts);
});

test("request() answers with the address of the VF, whatever its client says", async () => {
  const message = kernelRequest();
  for (const { parameters } of message.mechanismPreferences) parameters["pciAddress"] = "0000:00:00.0";
  const { mechanism } = await story.request(message);
  assert.equal(mechanism?.parameters["pciAddress"], story.vf.address);
});
