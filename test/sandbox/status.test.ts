import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { SANDBOX_FORWARDER, SANDBOX_RESOURCE, Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import { runCommandLine } from "../../src/commands/run.ts";
import { recordingTerminal, someSurroundings } from "../../src/commands/testing/fakes.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { needs } from "../needs.ts";

async function startedNode(t: TestContext) {
  const sandbox = await Sandbox.start({ machine: { realLinks: true }, log: silentLog, clock: systemClock });
  t.after(() => sandbox.stop());
  const forwarder = await sandbox.startForwarder();
  await sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.length > 0);
  return { sandbox, url: forwarder.adminUrl ?? "" };
}

test("status shows a connection while it is established, for the operator and for programs", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, url } = await startedNode(t);
  const { client, tokenId } = await sandbox.startPod("client-1");
  const connection = await client.request();
  const terminal = someSurroundings();
  assert.equal(await runCommandLine(["status", "--url", url], terminal), 0, terminal.err.text);
  assert.match(terminal.out.text, new RegExp(`^${SANDBOX_FORWARDER} \\S+, ready`));
  const vf = connection.mechanism?.parameters["pciAddress"] ?? "";
  assert.match(terminal.out.text, new RegExp(`^${vf} .* ready `, "m"));
  assert.match(terminal.out.text, new RegExp(` established +KERNEL +${vf} +client-1 `));
  assert.ok(!terminal.out.text.includes(tokenId));
  const programs = someSurroundings();
  assert.equal(await runCommandLine(["status", "--json", "--url", url], programs), 0);
  const { connections } = JSON.parse(programs.out.text);
  assert.deepEqual([connections.length, connections[0].vf, connections[0].client], [1, vf, "client-1"]);
});

test("status finds localhost at either of its addresses where no interface but loopback has one", async () => {
  for (const host of ["127.0.0.1", "::1"]) {
    const server = createServer((_, response) => void response.writeHead(418).end("found\n"));
    await new Promise<void>((resolve) => server.listen({ host, port: 0 }, resolve));
    const { port } = server.address() as AddressInfo;
    const around = someSurroundings();
    try {
      assert.equal(await runCommandLine(["status", "--url", `http://localhost:${port}`], around), 1);
      assert.match(around.err.text, /it answers 418 found$/m);
    } finally {
      server.close();
    }
  }
});

test("status --watch shows what comes and goes, and ends at its signal", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const { sandbox, url } = await startedNode(t);
  const leaving = new AbortController();
  const seen = [Promise.withResolvers<void>(), Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const counts: number[] = [];
  const out = {
    ...recordingTerminal(),
    write(line: string) {
      const { length } = JSON.parse(line).connections;
      if (counts.at(-1) !== length) counts.push(length);
      seen[counts.length - 1]?.resolve();
    },
  };
  const around = { ...someSurroundings(), out, signal: leaving.signal };
  const watching = runCommandLine(["status", "--watch", "--json", "--url", url], around);
  await seen[0]?.promise;
  const { client } = await sandbox.startPod("client-1");
  await client.request();
  await seen[1]?.promise;
  await client.close();
  await seen[2]?.promise;
  leaving.abort();
  assert.deepEqual([await watching, counts], [0, [0, 1, 0]]);
});

test("status says that there is no answer, or that it is another program's", async () => {
  const server = createServer((_, response) => response.end('{"hello":1}')).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const other = someSurroundings();
  assert.equal(await runCommandLine(["status", "--url", url], other), 1);
  assert.match(other.err.text, /no forwarder of this version/);
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  const without = someSurroundings();
  assert.equal(await runCommandLine(["status", "--url", url], without), 1);
  assert.match(
    without.err.text,
    /^forwarder status: Cannot reach a forwarder at http:\/\/127.0.0.1:\d+: no process listens there; is it running/,
  );
  const off = someSurroundings({ adminListenOn: undefined });
  assert.equal(await runCommandLine(["status"], off), 1);
  assert.match(off.err.text, /NSM_ADMIN_LISTEN_ON is off/);
  const open = someSurroundings({ adminListenOn: { host: "0.0.0.0", port: 9871 } });
  assert.equal(await runCommandLine(["status"], open), 1);
  assert.match(open.err.text, /0\.0\.0\.0:9871, where only SVIDs of its trust domain are answered/);
  assert.equal(await runCommandLine(["status", "--url", "localhost"], someSurroundings()), 2);
});
