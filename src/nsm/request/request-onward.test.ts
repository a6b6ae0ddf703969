import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { type Connection, State } from "../../gen/connection_pb.ts";
import { decodeToken } from "../../identity/index.ts";
import { RpcError, type Status } from "../../rpc/index.ts";
import { behalfOf, kernelRequest, refreshOf, settled } from "../testing/fakes.ts";
import { endpointReply, type Outside } from "../testing/fakes-outside.ts";
import { endStories, Story } from "../testing/story.ts";

afterEach(endStories);

let story: Story;
let answer: Connection;
let requested: string[];

// A second endpoint is there that would agree to everything.
beforeEach(async () => {
  story = new Story();
  answer = await story.request(kernelRequest());
  story.outside.endpoints.push({ name: "nse-2", networkServiceNames: ["ns1"], url: "tcp://nse-2:1" });
  requested = [];
  story.outside.replies.set("tcp://nse-2:1", (request) => {
    requested.push("nse-2");
    return endpointReply("nse-2")(request);
  });
});

function refusing(code: Status): void {
  story.outside.replies.set("tcp://nse-1:1", () => {
    requested.push("nse-1");
    throw new RpcError(code, "no");
  });
}

/** A refresh that names no endpoint: any would do. */
function freeRefresh() {
  const refresh = refreshOf(answer);
  if (refresh.connection) refresh.connection.networkServiceEndpointName = "";
  return refresh;
}

for (const code of ["PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "INTERNAL", "NOT_FOUND"] as const) {
  test(`a refresh that its endpoint refuses with ${code} leads to no other endpoint`, async () => {
    refusing(code);
    const finds = story.outside.finds.length;
    assert.equal((await story.failed(freeRefresh())).code, code);
    assert.deepEqual([requested, story.outside.finds.length], [["nse-1"], finds]);
    assert.deepEqual([story.connections, story.outside.closes], [1, []]);
  });
}

test("a refresh whose endpoint is out of reach leads to another one", async () => {
  refusing("UNAVAILABLE");
  assert.equal((await story.request(freeRefresh())).networkServiceEndpointName, "nse-2");
  assert.equal(requested.at(-1), "nse-2");
});

for (const [names, named, finds] of [
  ["no endpoint looks for one", "", 2],
  ["its endpoint goes to that one", "nse-1", 0],
] as const) {
  test(`a refresh after the endpoint was lost that names ${names}`, async () => {
    story.outside.watches[0]?.end(new RpcError("UNAVAILABLE", "connection lost"));
    await settled();
    const before = story.outside.finds.length;
    const refresh = freeRefresh();
    if (refresh.connection) refresh.connection.networkServiceEndpointName = named;
    await story.request(refresh);
    assert.equal(story.outside.finds.length - before, finds);
  });
}

test("a connection that another endpoint serves now is watched there, and at the former one no more", async () => {
  await story.request(freeRefresh());
  const refresh = refreshOf(answer);
  if (refresh.connection) refresh.connection.networkServiceEndpointName = "nse-2";
  await story.request(refresh);
  const [former, now] = story.outside.watches;
  assert.equal(former?.isCancelled, true);
  const heard = story.listen();
  now?.end();
  await settled();
  assert.equal(Object.values(heard.at(-1)?.connections ?? {})[0]?.state, State.DOWN);
});

test("the former endpoint is watched no more where the refresh that left it fails in a later step", async () => {
  story.vf.failing.set("attach", new Error("no"));
  story.vf.failing.set("stands", new Error("no"));
  refusing("UNAVAILABLE");
  await story.failed(freeRefresh());
  await settled();
  assert.deepEqual([requested.at(-1), story.outside.watches[0]?.isCancelled], ["nse-2", true]);
  story.vf.failing.clear();
});

test("a refresh for another network service goes to an endpoint of that one", async () => {
  const refresh = freeRefresh();
  if (refresh.connection) refresh.connection.networkService = "ns2";
  story.outside.services = [{ name: "ns2", payload: "ETHERNET" }];
  story.outside.endpoints = [{ name: "nse-2", networkServiceNames: ["ns2"], url: "tcp://nse-2:1" }];
  assert.equal((await story.request(refresh)).networkServiceEndpointName, "nse-2");
});

for (const [who, name, url, isClosed] of [
  ["another endpoint behind the same manager", "nse-3", "tcp://nse-1:1", true],
  ["the same endpoint behind another socket", "nse-1", "tcp://nse-1:2", true],
  ["the same endpoint behind the same socket", "nse-1", "tcp://nse-1:1", false],
] as const) {
  test(`a refresh that ${who} answers ${isClosed ? "closes" : "does not close"} the connection at the former`, async () => {
    let isFirst = true;
    story.outside.replies.set("tcp://nse-1:1", (request) => {
      if (isFirst) {
        isFirst = false;
        throw new RpcError("UNAVAILABLE", "no");
      }
      return endpointReply(name)(request);
    });
    story.outside.replies.set("tcp://nse-1:2", endpointReply(name));
    story.outside.endpoints = [{ name, networkServiceNames: ["ns1"], url }];
    assert.equal((await story.request(freeRefresh())).networkServiceEndpointName, name);
    await settled();
    assert.deepEqual(
      story.outside.closes.map(({ target, connection }) => [target, connection.networkServiceEndpointName]),
      isClosed ? [["tcp://nse-1:1", "nse-1"]] : [],
    );
  });
}

/** What comes now begins at nse-1 again: each search begins one endpoint further. */
async function closeFirst(): Promise<void> {
  await story.close(answer);
  story.outside.closes.length = 0;
  story.outside.endpoints.reverse();
}

/** The next call of an endpoint waits until the test lets it fail with the caller's leaving. */
function hanging() {
  const caller = new AbortController();
  const begun = Promise.withResolvers<void>();
  const reason = new RpcError("CANCELLED", "the caller has gone");
  const reply = () => {
    begun.resolve();
    return silence(caller.signal);
  };
  return { signal: caller.signal, reply, begun: begun.promise, leave: () => caller.abort(reason) };
}

test("a caller that leaves during the Request to an endpoint has no other one tried, and the connection closed there", async () => {
  const { signal, reply, begun, leave } = hanging();
  await closeFirst();
  story.outside.replies.set("tcp://nse-1:1", reply);
  const failed = story.failed(kernelRequest(), { signal });
  await begun;
  leave();
  assert.equal((await failed).code, "CANCELLED");
  await settled();
  assert.deepEqual(requested, []);
  assert.deepEqual(
    story.outside.closes.map(({ target }) => target),
    ["tcp://nse-1:1"],
  );
});

test("a caller that leaves during a refresh has nothing undone: the connection stays established", async () => {
  const { signal, reply, begun, leave } = hanging();
  story.outside.replies.set("tcp://nse-1:1", reply);
  const failed = story.failed(freeRefresh(), { signal });
  await begun;
  leave();
  await failed;
  await settled();
  assert.deepEqual([story.outside.closes, story.connections], [[], 1]);
});

test("an endpoint that refuses a first Request gets no Close", async () => {
  await closeFirst();
  refusing("PERMISSION_DENIED");
  assert.equal((await story.request(kernelRequest())).networkServiceEndpointName, "nse-2");
  assert.deepEqual(story.outside.closes, []);
});

test("an answer holds our token for the endpoint that gave it", () => {
  assert.deepEqual(decodeToken(answer.path?.pathSegments[2]?.token ?? "").aud, ["spiffe://test/endpoint"]);
});

test("an endpoint gets the Request with the payload of the service, whatever the client wants", async () => {
  await story.close(answer);
  await story.request(kernelRequest({ payload: "IP" }));
  assert.equal(story.outside.requests.at(-1)?.connection?.payload, "ETHERNET");
});

test("no caller waits for an endpoint that was left, and a Close that it does not answer is reported after a bounded time", async () => {
  const failures: unknown[] = [];
  Object.assign(story.deps.requesting, { onCloseFailed: (endpoint: string) => failures.push(endpoint) });
  refusing("UNAVAILABLE");
  const { outside } = story;
  const call = outside.call.bind(outside);
  outside.call = ((...args: Parameters<Outside["call"]>) =>
    args[1].name === "Close" ? silence(args[3]?.signal) : call(...args)) as Outside["call"];
  assert.equal((await story.request(freeRefresh())).networkServiceEndpointName, "nse-2");
  await story.clock.pass(5_100);
  assert.deepEqual(failures, ["nse-1"]);
  outside.call = call;
  outside.agreed.clear();
  outside.agreed.set("f1 at nse-2, tcp://nse-2:1", "");
});

test("all that is dialled for a connection is in its owner's share: behind the manager the client's", async () => {
  const { outside } = story;
  await story.close(answer);
  const owners: string[] = [];
  const [call, stream] = [outside.call.bind(outside), outside.stream.bind(outside)];
  const record = (name: string, { owner }: { readonly owner?: string | undefined } = {}) =>
    void owners.push(`${name} ${owner}`);
  outside.call = ((...args: Parameters<Outside["call"]>) => {
    record(args[1].name, args[3]);
    return call(...args);
  }) as Outside["call"];
  outside.stream = ((...args: [...Parameters<Outside["stream"]>, never, never]) => {
    record(args[1].name, args[3]);
    return stream(args[0], args[1]);
  }) as Outside["stream"];
  const client = "spiffe://test/pod-1";
  const established = await story.request(behalfOf(client, kernelRequest()));
  await story.close(behalfOf(client, refreshOf(established)).connection ?? established);
  const ofClient = `${client} behind the manager`;
  assert.deepEqual(owners, [
    "Find undefined",
    "Find undefined",
    `Request ${ofClient}`,
    `MonitorConnections ${ofClient}`,
    `Close ${ofClient}`,
  ]);
});

for (const [whose, reply] of [
  ["a wrong answer", endpointReply("nse-1", (connection) => delete connection.path)],
  [
    "an answer that came too late",
    () => {
      throw new RpcError("DEADLINE_EXCEEDED", "too long");
    },
  ],
] as const) {
  test(`that an endpoint gets no Close of ${whose} is reported`, async () => {
    await story.close(answer);
    const failures: unknown[] = [];
    Object.assign(story.deps.requesting, { onCloseFailed: (endpoint: string) => failures.push(endpoint) });
    story.outside.endpoints.pop();
    story.outside.replies.set("tcp://nse-1:1", reply as Parameters<typeof story.outside.replies.set>[1]);
    story.outside.closeFailure = new RpcError("UNAVAILABLE", "no");
    await story.failed(kernelRequest());
    await settled();
    assert.deepEqual(failures, ["nse-1"]);
  });
}

function silence(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

test("an endpoint that has failed a Request is tried after others by the next one", async () => {
  await story.close(answer);
  story.outside.endpoints = ["bogus", "nse-2"].map((name) => ({
    name,
    networkServiceNames: ["ns1"],
    url: `tcp://${name}:1`,
  }));
  story.outside.replies.set("tcp://bogus:1", () => {
    requested.push("bogus");
    throw new RpcError("UNAVAILABLE", "no");
  });
  for (let nth = 0; nth < 4; nth++) {
    const { networkServiceEndpointName, ...given } = await story.request(kernelRequest());
    assert.equal(networkServiceEndpointName, "nse-2");
    await story.close({ networkServiceEndpointName, ...given });
  }
  assert.equal(requested.filter((name) => name === "bogus").length, 1);
});
