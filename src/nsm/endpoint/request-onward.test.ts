import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { type Connection, State } from "../../gen/connection_pb.ts";
import { RpcError, type Status } from "../../rpc/index.ts";
import { kernelRequest, refreshOf, settled } from "../testing/fakes.ts";
import { endpointReply } from "../testing/fakes-outside.ts";
import { endStories, Story } from "../testing/story.ts";

afterEach(endStories);

let story: Story;
let answer: Connection;
let asked: string[];

// A second endpoint is there that would agree to everything.
beforeEach(async () => {
  story = new Story();
  answer = await story.request(kernelRequest());
  story.outside.endpoints.push({ name: "nse-2", networkServiceNames: ["ns1"], url: "tcp://nse-2:1" });
  asked = [];
  story.outside.replies.set("tcp://nse-2:1", (request) => {
    asked.push("nse-2");
    return endpointReply("nse-2")(request);
  });
});

function refusing(code: Status): void {
  story.outside.replies.set("tcp://nse-1:1", () => {
    asked.push("nse-1");
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
    assert.deepEqual([asked, story.outside.finds.length], [["nse-1"], finds]);
    assert.deepEqual([story.connections, story.outside.closes], [1, []]);
  });
}

test("a refresh whose endpoint is out of reach leads to another one", async () => {
  refusing("UNAVAILABLE");
  assert.equal((await story.request(freeRefresh())).networkServiceEndpointName, "nse-2");
  assert.equal(asked.at(-1), "nse-2");
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
  assert.deepEqual([asked.at(-1), story.outside.watches[0]?.isCancelled], ["nse-2", true]);
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
