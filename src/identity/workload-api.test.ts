import assert from "node:assert/strict";
import { test } from "node:test";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { createTestCa } from "../../sandbox/identity/x509.ts";
import { VirtualClock } from "../async/testing/virtual-clock.ts";
import { SpiffeWorkloadAPI, type X509SVIDResponseSchema } from "../gen/workload_pb.ts";
import { serveRpc, streamHandler } from "../rpc/index.ts";
import { MemoryTransport } from "../rpc/testing/memory-transport.ts";
import { silentLog } from "../telemetry/index.ts";
import { watchX509Context } from "./workload-api.ts";

const socket = "unix:///run/agent.sock";
const ca = createTestCa("home.example");
const { certChainDer, keyDer } = ca.issue({ spiffeId: "spiffe://home.example/forwarder" });
const good = { svids: [{ x509Svid: certChainDer, x509SvidKey: keyDer, bundle: ca.rootDer }] };

type Answer = MessageInitShape<typeof X509SVIDResponseSchema>;
const rows: readonly (readonly [says: string, answers: readonly Answer[], pausesMs: readonly number[]])[] = [
  ["that is good: soon again", [good], [100, 100, 100, 100]],
  ["that is useless: ever more rarely", [{ svids: [] }], [100, 200, 400, 800]],
  ["of none: ever more rarely", [], [100, 200, 400, 800]],
];
for (const [says, answers, pausesMs] of rows) {
  test(`watchX509Context() asks an agent that ends each stream after an answer ${says}`, async () => {
    const clock = new VirtualClock();
    const transport = new MemoryTransport({ clock, random: { fraction: () => 0 }, longestMs: 1 });
    const queriedMs: number[] = [];
    const handler = streamHandler(SpiffeWorkloadAPI.method.fetchX509SVID, async function* () {
      queriedMs.push(clock.now());
      if (queriedMs.length > pausesMs.length) stop.abort();
      yield* answers;
    });
    const stop = new AbortController();
    const server = await serveRpc({ url: socket, transport, handlers: [handler], log: silentLog, clock });
    const heard = { choice: () => ({}), onContext() {}, onProblem() {} };
    const random = { fraction: () => 1 };
    await watchX509Context({ socket, transport, clock, log: silentLog, random, ...heard }, stop.signal);
    const pauses = queriedMs.slice(1).map((atMs, at) => Math.round((atMs - (queriedMs[at] ?? 0)) / 50) * 50);
    assert.deepEqual(pauses, pausesMs);
    await server.stop(0);
  });
}
