import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { startMachine } from "../../sandbox/machine/machine.ts";
import { inOwnNetns, requireOwnNetns } from "../../sandbox/own-netns.ts";
import { KillableForwarder } from "../../sandbox/process/killable.ts";
import { Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { inNetns, type Netns } from "../../src/kernel/index.ts";
import { silentLog as log } from "../../src/telemetry/index.ts";
import { bundleProgram } from "../../tools/bundle-program.ts";
import { needs } from "../needs.ts";
import { openPlace, type Place } from "../scenes/namespaces.ts";

const ROOT = join(import.meta.dirname, "..", "..");
/** The sandbox's two adapters with eight virtual functions each, and one more. */
const LINKS = 2 * (1 + 8) + 1;

/** Another process's namespace: a link in use at each ifindex that a pretended VF can have. */
async function foreignNode(t: TestContext): Promise<Place> {
  const [node, peers] = [openPlace(), openPlace()];
  t.after(() => {
    for (const place of [node, peers]) {
      place.rtnl.close();
      place.netns.close();
    }
  });
  for (let at = 0; at < LINKS; at++) {
    const name = `uplink${at}`;
    await peers.rtnl.createLink({ kind: "veth", name: `p${at}`, peer: { name, netns: node.netns } });
    const link = await node.rtnl.linkByName(name);
    assert.equal(link?.index, at + 2);
    await node.rtnl.setLink(at + 2, { up: true, mtu: 1400 });
    await node.rtnl.addAddress({ ifindex: at + 2, address: `192.0.2.${at + 1}`, prefixLength: 32, noDad: true });
  }
  return node;
}

/** Name, flags, MAC, MTU, altnames and addresses of every link that is there, as `ip` prints it. */
function linksOf(netns: Netns): unknown {
  const shown = inNetns(netns, () => spawnSync("ip", ["-json", "-details", "address", "show"], { encoding: "utf8" }));
  assert.equal(shown.status, 0, shown.stderr);
  const links = JSON.parse(shown.stdout) as { readonly ifname: string; readonly addr_info: readonly object[] }[];
  assert.equal(links.length, LINKS + 1, "a link has come or gone");
  return links;
}

const refusal = (netns: Netns) =>
  new RegExp(
    `Cannot run a sandbox forwarder in the network namespace net:\\[${netns.id.ino}\\]: the sandbox did not make it ` +
      `.*this process is in net:\\[\\d+\\].*npm test`,
  );

test("a sandbox forwarder is refused in a namespace that the sandbox did not make, and every link there stays as it is", async (t) => {
  if (!needs(t, "root", "netns", "veth")) return;
  const { netns } = await foreignNode(t);
  const before = linksOf(netns);
  const program = join(ROOT, "test/scenes/foreign-start.ts");
  const args = ["--disable-warning=ExperimentalWarning", program];
  const said = inNetns(netns, () => spawnSync(process.execPath, args, { encoding: "utf8", timeout: 60_000 }));
  assert.match(said.stdout, refusal(netns), said.stderr);
  assert.deepEqual(linksOf(netns), before);
});

test("a sandbox forwarder in a process of its own is refused on a foreign namespace that was handed to it", async (t) => {
  if (!needs(t, "root", "netns", "veth")) return;
  const { netns } = await foreignNode(t);
  const before = linksOf(netns);
  const folder = mkdtempSync(join(tmpdir(), "foreign-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const program = await bundleProgram(ROOT, "sandbox/process/forwarder-process.ts");
  const sandbox = await Sandbox.start({ log, clock });
  const { machine, forwarderSettings, pfConfigFile } = sandbox;
  const node = { machine: { ...machine, netns }, forwarderSettings, pfConfigFile };
  const logFile = join(folder, "forwarder.log");
  const forwarder = new KillableForwarder(node, { program, logFile });
  t.after(async () => {
    await forwarder.kill(); // first: it writes into the sandbox's folder
    await sandbox.stop();
  });
  await assert.rejects(forwarder.started, /has ended/);
  assert.match(readFileSync(logFile, "utf8"), refusal(netns));
  assert.deepEqual(linksOf(netns), before);
});

test("startMachine() makes no link in a namespace that another process made", async (t) => {
  if (!needs(t, "root", "netns", "veth")) return;
  const { netns } = await foreignNode(t);
  const before = linksOf(netns);
  await assert.rejects(startMachine({ realLinks: true, netns }), refusal(netns));
  assert.deepEqual(linksOf(netns), before);
});

test("requireOwnNetns() takes the namespace of this test run, which the fence made, and inOwnNetns() marks none that was there before", async (t) => {
  if (!needs(t, "root", "netns")) return;
  const place = openPlace();
  t.after(() => {
    place.rtnl.close();
    place.netns.close();
  });
  await assert.rejects(requireOwnNetns(place.netns), refusal(place.netns));
  const [, ...words] = inOwnNetns();
  const withoutUnshare = words.slice(words.indexOf("sh"));
  const [shell = "", ...rest] = withoutUnshare;
  const said = spawnSync(shell, [...rest, "true"], { encoding: "utf8" });
  assert.notEqual(said.status, 0);
  assert.match(said.stderr, /still in the network namespace/);
});
