import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { systemClock } from "../../src/async/index.ts";
import { SpiffeWorkloadAPI } from "../../src/gen/workload_pb.ts";
import { RpcClient } from "../../src/rpc/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { Spire } from "./spire.ts";
import { WorkloadSocket } from "./workload-socket.ts";

const common = { log: silentLog, clock: systemClock };
const security = { metadata: { "workload.spiffe.io": "true" } };
const { fetchX509SVID, fetchX509Bundles } = SpiffeWorkloadAPI.method;

async function startAgent(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), "spire-"));
  const spire = new Spire({ clock: systemClock });
  const socket = new WorkloadSocket({
    ...common,
    spire,
    socketPath: join(folder, "agent.sock"),
    spiffeIds: [spire.idOf("forwarder")],
  });
  await socket.start();
  const rpc = new RpcClient({ ...common, dialTimeoutMs: 60_000, idleMs: 60_000 });
  t.after(async () => {
    await rpc.close();
    await socket.close();
    rmSync(folder, { recursive: true });
  });
  return { spire, socket, rpc };
}

test("WorkloadSocket sends the SVID at once and again after a rotation", async (t) => {
  const { spire, socket, rpc } = await startAgent(t);
  spire.federate("other.test");
  const keys: string[] = [];
  for await (const { svids, federatedBundles } of rpc.stream(socket.url, fetchX509SVID, {}, security)) {
    assert.deepEqual(
      svids.map(({ spiffeId }) => spiffeId),
      ["spiffe://sandbox.test/forwarder"],
    );
    assert.deepEqual(Object.keys(federatedBundles), ["spiffe://other.test"]);
    keys.push(Buffer.from(svids[0]?.x509SvidKey ?? []).toString("hex"));
    if (keys.length === 2) break;
    spire.rotate();
  }
  assert.notEqual(keys[0], keys[1]);
});

test("WorkloadSocket refuses a caller without the security header", async (t) => {
  const { socket, rpc } = await startAgent(t);
  const stream = rpc.stream(socket.url, fetchX509SVID, {}, {});
  await assert.rejects(stream[Symbol.asyncIterator]().next(), { code: "INVALID_ARGUMENT" });
});

test("WorkloadSocket.issue() of no identity ends the streams with PERMISSION_DENIED", async (t) => {
  const { socket, rpc } = await startAgent(t);
  const answers = rpc.stream(socket.url, fetchX509SVID, {}, security)[Symbol.asyncIterator]();
  await answers.next();
  socket.issue();
  await assert.rejects(answers.next(), { code: "PERMISSION_DENIED" });
});

test("WorkloadSocket serves the bundles of all trust domains", async (t) => {
  const { spire, socket, rpc } = await startAgent(t);
  spire.federate("other.test");
  for await (const { bundles } of rpc.stream(socket.url, fetchX509Bundles, {}, security)) {
    assert.deepEqual(Object.keys(bundles), ["spiffe://sandbox.test", "spiffe://other.test"]);
    break;
  }
});
