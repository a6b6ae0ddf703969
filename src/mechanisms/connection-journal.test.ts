import assert from "node:assert/strict";
import { mkdtemp, rename, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type Clock, systemClock } from "../async/index.ts";
import { JournalError, openJournal } from "../journal/index.ts";
import { openStateFolder } from "../kernel/index.ts";
import { type JournalEntry, QUOTA } from "../nsm/index.ts";
import type { PciAddress } from "../pci/index.ts";
import { Health } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { openNodeJournal } from "./connection-journal.ts";
import type { KernelVfEntry } from "./journal-entries.ts";

const entry: JournalEntry = {
  connectionId: "c1",
  owner: { spiffeId: "spiffe://d/manager", isManager: true },
  stage: "ready",
  mechanism: "KERNEL",
  tokenId: "sriov-1",
  connection: Buffer.from([0, 255, 10]),
  expiresMs: 1_700_000_000_000,
};
const vf = {
  use: "kernel",
  address: "0000:01:10.0",
  connectionId: "c1",
  tokenId: "sriov-1",
  netns: "4/40",
  state: { name: "nsm-1" },
};

async function folderOf(t: TestContext): Promise<string> {
  const parent = await mkdtemp(join(tmpdir(), "journal-"));
  t.after(() => rm(parent, { recursive: true, force: true }));
  return join(parent, "state");
}

async function open(statePath: string, clock: Clock = systemClock) {
  const [health, log] = [new Health(clock), recordingLog()];
  return {
    journal: await openNodeJournal({ state: await openStateFolder(statePath), health, clock, log }),
    health,
    log,
  };
}

test("openNodeJournal() keeps two owners' connections of one id", async (t) => {
  const folder = await folderOf(t);
  const before = (await open(folder)).journal;
  const other = { ...entry, connectionId: "c1 (2)", id: "c1", owner: { spiffeId: "spiffe://d/nsc", isManager: false } };
  await Promise.all([before.put(entry), before.put(other)]);
  await before.close();
  const { journal } = await open(folder);
  assert.deepEqual([...journal.left.values()], [entry, other]);
  await journal.drop("c1");
  assert.deepEqual([...journal.left.keys()], ["c1 (2)"]);
  await journal.close();
});

test("openNodeJournal() finds what was kept, byte by byte, and reports damage once", async (t) => {
  const folder = await folderOf(t);
  const before = (await open(folder)).journal;
  await Promise.all([before.put(entry), before.put({ ...entry, connectionId: "c2" })]);
  await before.keepVf(vf as unknown as KernelVfEntry);
  await before.drop("c2");
  await before.close();
  const { journal, log } = await open(folder);
  assert.deepEqual([[...journal.left.values()], [...journal.vfs.values()]], [[entry], [vf]]);
  journal.forgetVf(vf.address as PciAddress);
  assert.equal(journal.vfs.size, 0);
  await journal.close();
  assert.deepEqual(log.events, []);
  await truncate(join(folder, "journal"), 10_000); // grows: zeros, as after a power cut
  const next = await open(folder);
  t.after(() => next.journal.close());
  assert.deepEqual([[...next.journal.left.values()], [...next.journal.vfs.values()]], [[entry], []]);
  assert.deepEqual(
    next.log.events.map(({ event }) => event),
    ["journal-damaged"],
  );
});

test("openNodeJournal() refuses what cannot be kept, and says so until the disk is well", async (t) => {
  const folder = await folderOf(t);
  const { journal, health, log } = await open(folder);
  await rename(folder, `${folder}-away`);
  await writeFile(folder, "not a folder");
  await assert.rejects(journal.put(entry), (error) => {
    return error instanceof JournalError && error.fault.kind === "not-writable";
  });
  const reported = health.conditions().map(({ code, severity }) => `${code} ${severity}`);
  assert.deepEqual(reported, ["journal-not-written blocking"]);
  const kept = journal.keepVf(vf as unknown as KernelVfEntry);
  journal.forgetVf(vf.address as PciAddress); // what fails of it is made up for: no caller is there to get it
  await assert.rejects(kept, JournalError);
  assert.deepEqual(
    log.of("vf-not-forgotten").map(({ vf }) => vf),
    [vf.address],
  );
  await rm(folder);
  await rename(`${folder}-away`, folder);
  await journal.put(entry);
  assert.deepEqual(health.conditions(), []);
  await journal.close();
  assert.deepEqual([...(await reopened(t, folder)).left.values()], [entry]);
});

async function reopened(t: TestContext, folder: string) {
  const { journal } = await open(folder);
  t.after(() => journal.close());
  return journal;
}

test("openNodeJournal() writes everything again when its folder is removed, at the next write", async (t) => {
  const folder = await folderOf(t);
  const { journal, health, log } = await open(folder);
  await journal.put(entry);
  await journal.keepVf(vf as unknown as KernelVfEntry);
  await rm(folder, { recursive: true });
  await journal.put({ ...entry, connectionId: "c2" });
  assert.deepEqual(health.conditions(), []);
  assert.deepEqual(
    log.events.map(({ event, fields }) => [event, /removed/.test(String(fields?.["error"]))]),
    [["journal-not-written", true]],
  );
  await journal.close();
  const next = await reopened(t, folder);
  assert.deepEqual([next.left.size, [...next.vfs.values()]], [2, [vf]]);
});

test("openNodeJournal() checks whether its folder is still there when nothing is written", async (t) => {
  const folder = await folderOf(t);
  const observations: (() => void)[] = [];
  const after: Clock["after"] = (_delayMs, callback) => {
    observations.push(callback);
    return { cancel: () => observations.splice(observations.indexOf(callback), 1) };
  };
  const { journal } = await open(folder, { ...systemClock, after });
  await journal.put(entry);
  for (let times = 0; times < 2; times += 1) {
    await rm(folder, { recursive: true });
    observations.shift()?.();
    await journal.put(entry);
  }
  await rm(folder, { recursive: true });
  observations.shift()?.();
  await journal.close();
  assert.deepEqual([[...(await reopened(t, folder)).left.values()], observations], [[entry], []]);
});

const passing = (id: string, bytes: number): JournalEntry => {
  const { tokenId: _none, ...rest } = entry;
  return { ...rest, connectionId: id, mechanism: "NOOP", connection: Buffer.alloc(bytes, id) };
};

test("openNodeJournal() takes of what is too much what owners may have, and every VF that is out", async (t) => {
  const folder = await folderOf(t);
  const before = (await open(folder)).journal;
  const large = { ...entry, connection: Buffer.alloc(1_000_000, "c1") };
  await Promise.all([
    ...Array.from({ length: 300 }, (_, index) => before.put(passing(`n${index}`, 100))),
    ...["big 1", "big 2"].map((id) => before.put(passing(id, 1_000_000))),
    before.put(large),
    before.keepVf(vf as unknown as KernelVfEntry),
  ]);
  await before.close();
  const { journal, log } = await open(folder);
  const limit = QUOTA.manager.noop.connections;
  assert.equal(journal.left.size, limit + 1);
  assert.deepEqual([journal.left.get("c1"), journal.vfs.size], [large, 1]);
  const [reported, ...more] = log.events;
  assert.deepEqual([reported?.event, reported?.fields?.["count"], more], ["journal-over-quota", 300 + 2 - limit, []]);
  assert.equal(reported?.fields?.["bytes"], (300 - limit) * 100 + 2 * 1_000_000);
  assert.deepEqual(reported?.fields?.["first"], {
    connection: `n${limit}`,
    owner: entry.owner.spiffeId,
    limitOf: "owner-connections",
    used: limit,
    limit,
  });
  await journal.close();
  assert.ok((await stat(join(folder, "journal"))).size < 1_500_000);
  assert.equal((await reopened(t, folder)).left.size, limit + 1);
});

test("openNodeJournal() counts of a connection the bytes that it has, not those of its text", async (t) => {
  const folder = await folderOf(t);
  const before = (await open(folder)).journal;
  await before.put(passing("fits", 64 * 1024));
  await before.put(passing("too big", 64 * 1024 + 3));
  await before.close();
  const { journal, log } = await open(folder);
  t.after(() => journal.close());
  assert.deepEqual([...journal.left.keys()], ["fits"]);
  assert.deepEqual(log.events[0]?.fields?.["bytes"], 64 * 1024 + 3);
});

test("openNodeJournal() leaves kinds that it does not know in the file, and takes none of them for one of its own", async (t) => {
  const folder = await folderOf(t);
  const state = await openStateFolder(folder);
  const { journal: raw } = await openJournal({
    file: await state.openAppend("journal"),
    clock: systemClock,
    onTrouble() {},
  });
  const later = { ...vf, use: "virtio", address: "0000:01:10.1" };
  const records = { [`vf ${later.address}`]: later, "vf2 0000:01:10.2": { kind: "other" } } as const;
  for (const [key, value] of Object.entries(records)) await raw.put(key, value);
  await raw.put("connection c3", { connectionId: "c3", mechanism: "VIRTIO", owner: entry.owner, stage: "ready" });
  await raw.close();
  const { journal, log } = await open(folder);
  await journal.keepVf(vf as unknown as KernelVfEntry);
  assert.deepEqual([[...journal.vfs.values()], journal.left.size, log.events], [[vf], 0, []]);
  await journal.close();
  const { journal: after, found } = await openJournal({
    file: await state.openAppend("journal"),
    clock: systemClock,
    onTrouble() {},
  });
  await after.close();
  assert.deepEqual(
    [...found.entries.keys()].sort(),
    ["connection c3", ...Object.keys(records), `vf ${vf.address}`].sort(),
  );
  const { use: _none, ...version1 } = vf;
  assert.deepEqual(found.entries.get(`vf ${vf.address}`), version1, "as version 1 has it");
});

test("openNodeJournal() takes nothing of what is no entry, and all else", async (t) => {
  const folder = await folderOf(t);
  const state = await openStateFolder(folder);
  const options = { file: await state.openAppend("journal"), clock: systemClock, onTrouble() {} };
  const { journal: raw } = await openJournal<unknown>(options);
  for (const value of [null, 7, "text", true, []]) {
    for (const kind of ["connection", "vf", "settings", "unrestored", "vf2"]) await raw.put(`${kind} ${value}`, value);
  }
  await raw.close();
  const { journal } = await open(folder);
  assert.deepEqual([journal.vfs.size, journal.left.size, journal.unrestored.addresses], [0, 0, []]);
  await journal.keepVf(vf as unknown as KernelVfEntry);
  await journal.close();
  const again = await open(folder);
  assert.deepEqual([...again.journal.vfs.values()], [vf]);
  await again.journal.close();
});

test("openNodeJournal() has of connections those that the previous instance left, until they are written or dropped", async (t) => {
  const folder = await folderOf(t);
  const before = (await open(folder)).journal;
  for (const id of ["c1", "c2", "c3"]) await before.put({ ...entry, connectionId: id });
  await before.close();
  const journal = await reopened(t, folder);
  const left: (readonly string[])[] = [];
  journal.onLeftDropped?.((id) => left.push([id, ...journal.left.keys()]));
  await Promise.all([journal.put(entry), journal.drop("c2"), journal.put({ ...entry, connectionId: "c4" })]);
  await journal.drop("c4");
  assert.deepEqual([left, [...journal.left.keys()]], [[["c2", "c3"]], ["c3"]]);
});

const settingsOf = (boot: string) => ({ boot, settings: { txqueuelen: "1000 ".repeat(400) } });
const withSettings = (boot: string): KernelVfEntry =>
  ({ ...vf, state: { ...vf.state, kept: settingsOf(boot) } }) as unknown as KernelVfEntry;
const sizeOf = async (folder: string) => (await stat(join(folder, "journal"))).size;

test("openNodeJournal() writes the settings of a network device once, and finds them with its VF", async (t) => {
  const folder = await folderOf(t);
  const { journal } = await open(folder);
  const before = withSettings("boot 1");
  await journal.keepVf(before);
  const first = await sizeOf(folder);
  const left: KernelVfEntry = { ...before, isLeft: true, state: { ...before.state, clientIndex: 3 } };
  await journal.keepVf(left);
  assert.ok((await sizeOf(folder)) - first < 1_000, `${await sizeOf(folder)} after ${first}`);
  await journal.close();
  const again = (await open(folder)).journal;
  assert.deepEqual([...again.vfs.values()], [left]);
  const sized = await sizeOf(folder);
  const [found] = again.vfs.values();
  await again.keepVf(found ?? assert.fail());
  assert.ok((await sizeOf(folder)) - sized < 1_000, "what the previous instance has written is not written again");
  await again.close();
});

test("openNodeJournal() keeps the settings of the latest connection, and none of a VF that it has forgotten", async (t) => {
  const folder = await folderOf(t);
  const second = withSettings("boot 2");
  const third = { ...second, connectionId: "c2" };
  const bare = { ...vf, connectionId: "c2" } as unknown as KernelVfEntry;
  const keep = (entry: KernelVfEntry) => ({ entry });
  const forget = { entry: undefined };
  const steps = {
    "at first": [keep(withSettings("boot 1"))],
    "other settings": [keep(second)],
    "the same of the next connection": [keep(second), keep(third)],
    "without any": [forget, keep(bare)],
    "the same again": [keep(third), forget, keep(third)],
  };
  for (const [what, acts] of Object.entries(steps)) {
    const { journal } = await open(folder);
    for (const { entry } of acts) {
      if (entry) await journal.keepVf(entry);
      else journal.forgetVf(third.address);
    }
    await journal.close();
    const again = (await open(folder)).journal;
    assert.deepEqual([...again.vfs.values()], [acts.at(-1)?.entry], what);
    await again.close();
  }
});

test("openNodeJournal() takes settings for those of their own connection only, and lets go of those without a VF", async (t) => {
  const folder = await folderOf(t);
  const state = await openStateFolder(folder);
  const openRaw = async () =>
    await openJournal({ file: await state.openAppend("journal"), clock: systemClock, onTrouble() {} });
  const { journal: raw } = await openRaw();
  const { use: _none, ...version1 } = { ...vf, state: { ...vf.state, kept: settingsOf("boot 1") } };
  await raw.put(`vf ${vf.address}`, version1); // as earlier versions have it
  for (const address of [vf.address, "0000:01:10.1"]) {
    const connectionId = address === vf.address ? "c1" : "c9";
    await raw.put(`settings ${address}`, { address, connectionId, kept: settingsOf("boot 0") });
  }
  await raw.close();
  const { journal } = await open(folder);
  const [found] = journal.vfs.values();
  assert.equal(found?.use === "kernel" && found.state.kept?.boot, "boot 1", "its own");
  await journal.close();
  const { journal: after, found: left } = await openRaw();
  await after.close();
  assert.deepEqual([...left.entries.keys()].sort(), [`settings ${vf.address}`, `vf ${vf.address}`]);
});

test("openNodeJournal() keeps how the host had a VF, beside its entry and without one, until that is forgotten", async (t) => {
  const folder = await folderOf(t);
  const { journal } = await open(folder);
  const { address, connectionId, state } = withSettings("boot 1");
  const before = { connectionId, state };
  await journal.keepVf(vf as unknown as KernelVfEntry);
  await journal.unrestored.keep(address, { before });
  const size = await sizeOf(folder);
  await journal.unrestored.keep(address, { before: { ...before, connectionId: "c2" } }); // the same
  await journal.unrestored.keep(address, {}); // it is known
  assert.equal(await sizeOf(folder), size);
  journal.forgetVf(address);
  await journal.close();
  const again = (await open(folder)).journal;
  assert.deepEqual(
    [again.vfs.size, again.unrestored.addresses, again.unrestored.beforeOf(address)],
    [0, [address], before],
  );
  again.unrestored.forget(address);
  await again.unrestored.keep(address, {});
  assert.deepEqual([again.unrestored.has(address), again.unrestored.beforeOf(address)], [true, undefined]);
  await again.unrestored.keep(address, { before });
  assert.deepEqual(again.unrestored.beforeOf(address), before);
  again.unrestored.forget(address);
  await again.close();
  assert.deepEqual((await reopened(t, folder)).unrestored.addresses, []);
});
