import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { systemClock } from "../async/index.ts";
import { NetworkService } from "../gen/networkservice_pb.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { silentLog } from "../telemetry/index.ts";
import { RpcClient } from "./client.ts";
import { unaryHandler } from "./handler.ts";
import { type ServeOptions, serveRpc } from "./server.ts";

const { request: Request } = NetworkService.method;

async function serve(t: TestContext, options: Partial<ServeOptions>) {
  const folder = mkdtempSync(join(tmpdir(), "rpc-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const url = `unix://${folder}/test.sock`;
  const server = await serveRpc({ url, handlers: [], log: silentLog, clock: systemClock, ...options });
  t.after(() => server.stop(0));
  const client = new RpcClient({ log: silentLog, clock: systemClock, dialTimeoutMs: 10_000, idleMs: 60_000 });
  t.after(() => client.close());
  return { url, client };
}

test("serveRpc() holds a request against its peer only until it is whole, not until it is answered", async (t) => {
  const gate = Promise.withResolvers<void>();
  let running = Promise.withResolvers<void>();
  const handler = unaryHandler(Request, async ({ connection }) => {
    running.resolve();
    await gate.promise;
    return { id: String(connection?.id.length) };
  });
  const { url, client } = await serve(t, { handlers: [handler], limits: { maxMessageBytes: 1000 } });
  const calls: Promise<{ readonly response: { readonly id: string } }>[] = [];
  // Three times what may be half received at once on one connection.
  for (let count = 0; count < 12; count += 1) {
    running = Promise.withResolvers();
    const call = client.call(url, Request, { connection: { id: "x".repeat(900) } });
    calls.push(call);
    await Promise.race([running.promise, call]);
  }
  gate.resolve();
  const answers = await Promise.all(calls);
  assert.ok(answers.every(({ response }) => response.id === "900"));
});

test("serveRpc() keeps no timer of a call that has been answered", async (t) => {
  const clock = new HandClock();
  let during = 0;
  const handler = unaryHandler(Request, async () => {
    during = clock.timerCount;
    return {};
  });
  const { url, client } = await serve(t, { handlers: [handler], clock });
  await client.call(url, Request, {}, { timeoutMs: 10_000 });
  assert.ok(during > 0, "the deadline of the call had no timer");
  while (clock.timerCount > 0) await setImmediate();
});
