// What a connection announces of how many calls it takes at once, and what becomes of more.
import assert from "node:assert/strict";
import { once } from "node:events";
import { type ClientHttp2Session, connect, type Settings } from "node:http2";
import { type TestContext, test } from "node:test";
import { within } from "../../test/scenes/until.ts";
import { systemClock as clock } from "../async/index.ts";
import { NetworkService } from "../gen/networkservice_pb.ts";
import { silentLog as log } from "../telemetry/index.ts";
import { RpcClient } from "./client.ts";
import { unaryHandler } from "./handler.ts";
import { PeerLimits } from "./peer-limits.ts";
import { defaultLimits } from "./rpc-limits.ts";
import { serveRpc } from "./server.ts";

const { request: Request } = NetworkService.method;

async function serve(
  t: TestContext,
  { isManager = () => false, maxConcurrentCalls = 1_000, answer = async () => ({}) },
) {
  const limits = { ...defaultLimits, maxConcurrentCalls, calls: { each: 3, others: 6, manager: 8 } };
  const refused: string[] = [];
  const onRefused = (kind: string) => void refused.push(kind);
  const owners = new PeerLimits({ limits, clock, isManager, onRefused });
  const handlers = [unaryHandler(Request, answer)];
  const server = await serveRpc({ url: "tcp://127.0.0.1:0", handlers, limits, owners, log, clock });
  t.after(() => server.stop(0));
  return { server, refused };
}

function session(t: TestContext, url: string): ClientHttp2Session {
  const made = connect(url.replace("tcp:", "http:")).on("error", () => {});
  t.after(() => made.destroy());
  return made;
}

async function settingsOf(made: ClientHttp2Session): Promise<number | undefined> {
  const [settings] = (await within("settings come", once(made, "remoteSettings"))) as [Settings];
  return settings.maxConcurrentStreams;
}

for (const [whose, is, options] of [
  ["of a peer", 3, {}],
  ["of a peer where a connection may have less", 2, { maxConcurrentCalls: 2 }],
  ["of the manager", 8, { isManager: () => true, maxConcurrentCalls: 2 }],
] as const) {
  test(`serveRpc() announces on each connection ${whose} the calls that may be begun`, async (t) => {
    const { server } = await serve(t, options);
    assert.equal(await settingsOf(session(t, server.url)), is);
  });
}

test("serveRpc() announces more where a peer turns out to be the manager", async (t) => {
  let isKnown = false;
  const { server } = await serve(t, { isManager: () => isKnown });
  const made = session(t, server.url);
  assert.equal(await settingsOf(made), 3);
  isKnown = true;
  const raised = settingsOf(made);
  made
    .request({ ":method": "POST", ":path": "/none" })
    .on("error", () => {})
    .resume()
    .end();
  assert.equal(await raised, 8);
});

test("serveRpc() has calls wait at their caller where more would be refused", async (t) => {
  let [atOnce, most] = [0, 0];
  const answer = async () => {
    atOnce += 1;
    most = Math.max(most, atOnce);
    await new Promise((resolve) => setImmediate(resolve));
    atOnce -= 1;
    return {};
  };
  const { server, refused } = await serve(t, { answer });
  const client = new RpcClient({ log, clock, dialTimeoutMs: 60_000, idleMs: 60_000 });
  t.after(() => client.close());
  await Promise.all(Array.from({ length: 20 }, () => client.call(server.url, Request, {}, { timeoutMs: 60_000 })));
  assert.deepEqual([refused, most], [[], 3]);
});
