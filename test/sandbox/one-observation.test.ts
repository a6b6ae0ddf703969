// What the forwarder decides about a physical function rests on one observation: an adapter may come or go between any two of
// its reads, and a driver may take as long as it likes.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type Machine, type MachineOptions, startMachine } from "../../sandbox/machine/machine.ts";
import { UnsyncedDisk } from "../../sandbox/machine/unsynced-disk.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { type HostFiles, openStateFolder } from "../../src/kernel/index.ts";
import { type Host, openNode, watchNode } from "../../src/node/index.ts";
import { parsePfConfig } from "../../src/pci/index.ts";
import { Health } from "../../src/telemetry/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";
import { eventually } from "./scenes/story.ts";

const [FIRST, SECOND] = ["0000:01:00.0", "0000:02:00.0"];
const VFS = 2;

/** Acts once, in front of the read of that number, which waits for it. Counts the reads. */
class Reads {
  count = 0;
  readonly #at: number;
  readonly #act: () => Promise<unknown>;

  constructor(at = Number.POSITIVE_INFINITY, act: () => Promise<unknown> = async () => {}) {
    this.#at = at;
    this.#act = act;
  }

  of(files: HostFiles): HostFiles {
    const step = async () => {
      const isNow = this.count === this.#at;
      this.count += 1;
      if (isNow) await this.#act();
    };
    const stepped =
      <A extends unknown[], R>(read: (...args: A) => Promise<R>) =>
      async (...args: A) => {
        await step();
        return await read(...args);
      };
    return {
      ...files,
      readText: stepped(files.readText),
      list: stepped(files.list),
      readLink: stepped(files.readLink),
      exists: stepped(files.exists),
    };
  }
}

/** A node with two adapters, as the forwarder observes it from its start on. */
async function observe(t: TestContext, machine: Machine, reads = new Reads(), configText = machine.configText) {
  const [health, log] = [new Health(clock), recordingLog()];
  const none = () => Promise.reject(new Error("no device access here"));
  const host: Host = {
    ...machine,
    devices: reads.of(machine.devices),
    drivers: reads.of(machine.drivers),
    openAccess: none as never,
  };
  const pfConfig = parsePfConfig(configText, "pci.config");
  const node = await openNode({
    pfConfig,
    host,
    state: await openStateFolder("/state", { disk: new UnsyncedDisk(), random: machine.random }),
    health,
    clock,
    log,
  });
  const watch = await watchNode({ node, host, pfConfigFile: undefined, health, clock, log });
  const close = async () => {
    node.close();
    await watch.close();
  };
  t.after(close);
  const vfsOf = (pf: string) => node.inventory.snapshot().filter((vf) => vf.pf === pf && vf.problem === undefined);
  const codes = () => health.conditions().map(({ code, subject }) => `${code} ${subject}`);
  const seen = () => ({ first: vfsOf(FIRST).length, second: vfsOf(SECOND).length, codes: codes() });
  const becomes = (first: number, second: number, ...desired: string[]) =>
    eventually(seen, (now) => now.first === first && now.second === second && String(now.codes) === String(desired));
  return { node, watch, health, log, becomes, close };
}

async function start(t: TestContext, options: MachineOptions = {}): Promise<Machine> {
  const machine = await startMachine({ vfsPerPf: VFS, ...options });
  t.after(() => machine.stop());
  return machine;
}

/** How many reads there are from the start until all is settled; what comes or goes at a later one is a later event. */
async function readsUntilSettled(t: TestContext, options: MachineOptions): Promise<number> {
  const reads = new Reads();
  const machine = await start(t, options);
  const { becomes, close } = await observe(t, machine, reads);
  await becomes(VFS, VFS);
  await close();
  return reads.count;
}

for (const numVfs of [0, VFS]) {
  test(`an adapter that comes in front of any read gets its VFs; the other had ${numVfs}`, async (t) => {
    const count = await readsUntilSettled(t, { numVfs });
    assert.ok(count > 20, `only ${count} reads`);
    for (let at = 0; at <= count; at += 1) {
      const machine = await start(t, { numVfs });
      const reads = new Reads(at, await machine.removePf(SECOND));
      const { becomes, watch, close } = await observe(t, machine, reads);
      await eventually(
        () => watch.rescan(),
        () => reads.count > at,
      );
      await becomes(VFS, VFS).catch((error) => assert.fail(`in front of read ${at}: ${error.message}`));
      await close();
    }
  });

  test(`an adapter that goes in front of any read is missed, and serves when it is back; had ${numVfs}`, async (t) => {
    const count = await readsUntilSettled(t, { numVfs });
    for (let at = 0; at < count; at += 1) {
      const machine = await start(t, { numVfs });
      const gone = Promise.withResolvers<() => Promise<void>>();
      const reads = new Reads(at, () => {
        gone.resolve(machine.removePf(SECOND));
        return gone.promise;
      });
      const { becomes, watch, close } = await observe(t, machine, reads);
      await eventually(
        () => watch.rescan(),
        () => reads.count > at,
      );
      const putBack = await gone.promise;
      const where = (error: Error) => assert.fail(`in front of read ${at}: ${error.message}`);
      await becomes(VFS, 0, `pf-unusable ${SECOND}`).catch(where);
      await putBack();
      await becomes(VFS, VFS).catch(where);
      await close();
    }
  });
}

test("an adapter that went and came between two observations gets its VFs", async (t) => {
  const machine = await start(t);
  const { becomes } = await observe(t, machine);
  await becomes(VFS, VFS);
  await (await machine.removePf(SECOND))();
  await becomes(VFS, VFS);
});

test("functions that the operator takes away stay away, with a condition that says how to have them again", async (t) => {
  const machine = await start(t);
  const { becomes, health, watch } = await observe(t, machine);
  await becomes(VFS, VFS);
  await machine.devices.writeText(`${SECOND}/sriov_numvfs`, "0");
  await becomes(VFS, 0, `pf-without-vfs ${SECOND}`);
  watch.rescan();
  await becomes(VFS, 0, `pf-without-vfs ${SECOND}`);
  assert.equal(await machine.devices.readText(`${SECOND}/sriov_numvfs`), "0");
  assert.match(
    health.conditions()[0]?.sentence ?? "",
    /echo 2 > \/sys\/bus\/pci\/devices\/0000:02:00\.0\/sriov_numvfs/,
  );
  await machine.devices.writeText(`${SECOND}/sriov_numvfs`, "1");
  await becomes(VFS, 1);
});

test("a driver that does not finish holds up no client, and what it is asked for is a condition until it is there", async (t) => {
  const machine = await start(t, { numVfs: 0 });
  const finish = machine.faults.stallWrite({ tree: "devices", path: `${SECOND}/sriov_numvfs` });
  const { becomes, node } = await observe(t, machine);
  await becomes(VFS, 0, `pf-without-vfs ${SECOND}`);
  assert.match(node.survey.problemOf(SECOND as never) ?? "", /its driver is being asked for 2/);
  finish();
  await becomes(VFS, VFS);
});

test("a driver that refuses is not asked again, is a condition, and is asked when its adapter comes again", async (t) => {
  const machine = await start(t, { numVfs: 0 });
  machine.faults.failWrite({ tree: "devices", path: `${SECOND}/sriov_numvfs`, code: "ENOSPC" });
  const { becomes, watch, health } = await observe(t, machine);
  await becomes(VFS, 0, `pf-unusable ${SECOND}`);
  assert.match(health.conditions()[0]?.sentence ?? "", /the kernel says ENOSPC; the firmware reserved too few/);
  watch.rescan();
  await becomes(VFS, 0, `pf-unusable ${SECOND}`);
  await (await machine.removePf(SECOND))();
  await becomes(VFS, VFS);
});

test("as many VFs are asked for as the file says", async (t) => {
  const machine = await start(t, { numVfs: 0 });
  const text = machine.configText.replaceAll("[worker.domain]\n", "[worker.domain]\n    numVfs: 1\n");
  const { becomes } = await observe(t, machine, new Reads(), text);
  await becomes(1, 1);
});
