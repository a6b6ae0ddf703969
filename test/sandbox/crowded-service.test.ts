// A peer that registers endpoints of another one's service by the thousand: a client of the service is served by the one that serves.
import assert from "node:assert/strict";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { SANDBOX_SERVICE } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { NetworkServiceEndpointRegistry } from "../../src/gen/registry_pb.ts";
import { RpcClient } from "../../src/rpc/index.ts";
import { silentLog as log } from "../../src/telemetry/index.ts";
import { runStories, type Scene } from "./scenes/story.ts";

/** More than a registrant's share, and more than a Request could try. */
const BOGUS = 1_030;
const REQUESTS = 6;

runStories(
  "a service that another peer has crowded",
  { machine: { pfs: 1 } },
  { "is served all the same, and by the endpoint that serves first once the others have failed": crowd },
);

async function crowd(scene: Scene): Promise<void> {
  const { sandbox } = scene;
  const { tls, headers: credentials } = sandbox.actor("evil");
  const evil = new RpcClient({ tls, credentials, log, clock, dialTimeoutMs: 30_000, idleMs: 30_000 });
  const { register, unregister } = NetworkServiceEndpointRegistry.method;
  const { registry } = sandbox.nsmgr;
  // No process listens there.
  const bogus = { name: "bogus-0", networkServiceNames: [SANDBOX_SERVICE], url: "tcp://127.0.0.1:1" };
  await evil.call(sandbox.nsmgr.url, register, bogus);
  const { endpoint = assert.fail("it is registered"), socket } = registry.endpoints.get(bogus.name) ?? {};
  // The others stand there as their calls would leave them.
  const others = Array.from({ length: BOGUS - 1 }, (_, nth) => `bogus-${nth + 1}`);
  const expiresMs = timestampMs(endpoint.expirationTime ?? assert.fail("it expires"));
  for (const name of others) registry.putEndpoint({ endpoint: { ...endpoint, name }, socket }, expiresMs);
  try {
    const failed: unknown[] = [];
    for (let nth = 0; nth < REQUESTS; nth++) {
      const client = scene.direct(await scene.pod());
      await client.request().catch((error: unknown) => failed.push(error));
      await client.close();
      await scene.endPods();
    }
    assert.deepEqual(failed, []);
    assert.ok(sandbox.endpoint.requests.length >= REQUESTS);
  } finally {
    for (const name of others) registry.removeEndpoint(name);
    await evil.call(sandbox.nsmgr.url, unregister, bogus);
    await evil.close();
  }
}
