import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { createWriteStream, mkdirSync, writeFileSync } from "node:fs";
import { promisify } from "node:util";
import { ip } from "../../test/sandbox/scenes/ip.ts";
import { closingAll, everybody, round } from "./crowd-stories.ts";
import { adapters, netdevOf, operate, restoreAdapter, VFS_PER_ADAPTER, vfsOf } from "./hardware.ts";
import { untilAsBefore, wholeNode } from "./kernel-stories.ts";
import type { LabNode } from "./node.ts";
import type { Stage } from "./stage.ts";
import { eventually, within } from "./waiting.ts";

const run = promisify(execFile);
const LIMIT_MS = 60_000;

/** Debian's udev with its own rules names VFs, whenever one comes: from its driver, and from a pod. */
export async function udev(stage: Stage, rounds: number): Promise<void> {
  const count = rounds * 2 * VFS_PER_ADAPTER;
  const node = await stage.node();
  await stage.story(`udev names VFs while they come and go ${count} times: none loses its names, no Close fails`, () =>
    besideUdev(async () => {
      await madeAgain(node);
      const before = await wholeNode();
      const clients = await everybody(node);
      await closingAll(clients, async () => {
        for (let number = 1; number <= rounds; number += 1) {
          await round(node, clients, "_beside_udev");
          await settle();
          await untilAsBefore(before);
        }
      });
    }),
  );
  await node.endLeftPods();
}

/** New VFs, with names of udev and one of the operator. */
async function madeAgain(node: LabNode): Promise<void> {
  for (const adapter of Object.values(adapters)) {
    operate(`${adapter}/sriov_numvfs`, "0");
    await restoreAdapter(adapter);
  }
  const isNamed = (names: readonly string[]) =>
    names.length === 2 * VFS_PER_ADAPTER && names.every((name) => /^en.*v\d$/.test(name));
  const names = await eventually(async () => await vfNames(), isNamed, LIMIT_MS);
  await settle();
  for (const [number, name] of names.entries()) {
    await ip(undefined, `link property add dev ${name} altname of-operator-${number}`);
    const shown = await ip(undefined, `link show dev ${name}`);
    assert.equal(shown.match(/altname/g)?.length, 2, shown); // udev's other name, and this one
  }
  await node.untilHealthy();
}

async function vfNames(): Promise<readonly string[]> {
  const vfs = (await Promise.all(Object.values(adapters).map(vfsOf))).flat();
  return vfs.map(({ address }) => netdevOf(address) ?? "");
}

async function besideUdev(work: () => Promise<void>): Promise<void> {
  await configure();
  const daemon = spawn("/lib/systemd/systemd-udevd", [], { stdio: ["ignore", "ignore", "pipe"] });
  const gone = new Promise((resolve) => daemon.once("close", resolve));
  daemon.stderr.pipe(createWriteStream("/out/udev.log"));
  try {
    await eventually(
      () => run("udevadm", ["control", "--ping"]).then(() => "", String),
      (error) => error === "",
      LIMIT_MS,
    );
    await work();
    assert.equal(daemon.exitCode, null);
  } finally {
    daemon.kill();
    await within(LIMIT_MS, "the end of udev", gone);
  }
}

/** What udev does by default, and another name for each VF. Without a machine's id it gives no addresses. */
async function configure(): Promise<void> {
  const folder = "/etc/systemd/network";
  mkdirSync(folder, { recursive: true });
  writeFileSync("/etc/machine-id", `${"0123456789abcdef".repeat(2)}\n`);
  const vfs = (await Promise.all(Object.values(adapters).map(vfsOf))).flat();
  for (const [number, { address }] of vfs.entries()) {
    const names = `NamePolicy=keep kernel path\nAlternativeName=of-udev-${number}`;
    const text = `[Match]\nPath=pci-${address}\n[Link]\n${names}\nMACAddressPolicy=persistent\n`;
    writeFileSync(`${folder}/10-of-${number}.link`, text);
  }
}

/** Until it has dealt with all that has come. */
async function settle(): Promise<void> {
  await run("udevadm", ["settle", `--timeout=${LIMIT_MS / 1000}`]);
}
