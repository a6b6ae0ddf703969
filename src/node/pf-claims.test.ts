import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { systemClock } from "../async/index.ts";
import { VirtualClock } from "../async/testing/virtual-clock.ts";
import { Errno, KernelError, lockFolder, tryLockFolder } from "../kernel/index.ts";
import { parsePfConfig } from "../pci/index.ts";
import { Health } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { PfClaims } from "./pf-claims.ts";

const [first, second] = ["0000:01:00.0", "0000:02:00.0"] as const;
const entry = (address: string) =>
  `  ${address}:\n    pfKernelDriver: igb\n    vfKernelDriver: igbvf\n    capabilities: [c]\n    serviceDomains: [d.e]\n`;
const listOf = (...addresses: readonly string[]) =>
  parsePfConfig(`physicalFunctions:\n${addresses.map(entry).join("")}`, "pci.config");

/** A sysfs as far as locks go, and forwarders on it. */
function node(t: TestContext) {
  const sysfs = mkdtempSync(join(tmpdir(), "sysfs-"));
  t.after(() => rmSync(sysfs, { recursive: true }));
  for (const address of [first, second]) mkdirSync(join(sysfs, address));
  const locks = { folder: lockFolder, pf: (address: string) => tryLockFolder(join(sysfs, address)) };
  const forwarder = () => {
    const [health, log] = [new Health(systemClock), recordingLog()];
    const claims = new PfClaims({ locks, health, log });
    t.after(() => claims.close());
    const ours = (...addresses: readonly string[]) =>
      claims.ours(listOf(...addresses)).physicalFunctions.map((one) => one.address);
    const reported = () => health.conditions().map(({ code, subject }) => `${code} ${subject}`);
    return { claims, ours, reported, log };
  };
  return { sysfs, forwarder };
}

test("PfClaims leaves out what another process has, says so once, and takes it when that has gone", (t) => {
  const { forwarder } = node(t);
  const [one, other] = [forwarder(), forwarder()];
  assert.deepEqual(one.ours(first), [first]);
  assert.deepEqual(other.ours(first, second), [second]);
  assert.deepEqual(other.ours(first, second), [second]);
  assert.deepEqual([other.reported(), other.claims.isWaiting], [[`pf-held-elsewhere ${first}`], true]);
  assert.match(other.claims.problemOf(first as never) ?? "", /another forwarder on this node has it/);
  assert.equal(other.log.events.length, 1);
  one.claims.close();
  assert.deepEqual(other.ours(first, second), [first, second]);
  assert.deepEqual(
    [other.reported(), other.claims.isWaiting, other.claims.problemOf(first as never)],
    [[], false, undefined],
  );
});

test("PfClaims.awaitDying() waits for a process that lets go of its locks one after the other, and not for one that lives", async (t) => {
  const { forwarder } = node(t);
  const [one, other, third] = [forwarder(), forwarder(), forwarder()];
  const clock = new VirtualClock({ nowMs: 0 });
  one.ours(first);
  clock.after(400, () => one.claims.close());
  await other.claims.awaitDying(listOf(first, second), clock);
  assert.ok(clock.now() < 1_000, `waited ${clock.now()} ms`);
  assert.deepEqual([other.ours(first, second), other.log.events.length], [[first, second], 0]);
  await third.claims.awaitDying(listOf(first, second), clock);
  assert.deepEqual(third.ours(first, second), []);
  const signal = AbortSignal.abort(new Error("stopped"));
  await assert.rejects(third.claims.awaitDying(listOf(first), clock, signal), /stopped/);
});

test("PfClaims.awaitDying() tries only what is still held: a PF that cannot be locked is said once", async () => {
  const log = recordingLog();
  const pf = (address: string) => {
    if (address === first) throw new KernelError("lock the PF", Errno.EACCES);
    return undefined;
  };
  const claims = new PfClaims({ locks: { folder: lockFolder, pf }, health: new Health(systemClock), log });
  await claims.awaitDying(listOf(first, second), new VirtualClock({ nowMs: 0 }));
  assert.equal(log.of("pf-not-locked").length, 1);
});

test("PfClaims waits for nothing that the list does not name any more", (t) => {
  const { forwarder } = node(t);
  const [one, other] = [forwarder(), forwarder()];
  one.ours(first);
  other.ours(first);
  assert.deepEqual(other.ours(second), [second]);
  assert.deepEqual([other.reported(), other.claims.isWaiting], [[], false]);
});

test("PfClaims lets through what is not there, and claims an adapter again that has come back", (t) => {
  const { sysfs, forwarder } = node(t);
  const [one, other] = [forwarder(), forwarder()];
  assert.deepEqual(one.ours(first), [first]);
  rmdirSync(join(sysfs, first));
  assert.deepEqual(one.ours(first), [first]);
  assert.deepEqual(one.log.of("pf-not-locked"), [], "its observation says that it is not there");
  mkdirSync(join(sysfs, first));
  assert.deepEqual(one.ours(first), [first]);
  assert.deepEqual(other.ours(first), []);
});

test("PfClaims lets go of the lock of an adapter that has left its slot, and passes over no fault of its own", () => {
  const held = { locks: 0, isCurrent: true };
  const pf = () => {
    held.locks += 1;
    const release = () => {
      held.locks -= 1;
    };
    return { isCurrent: () => held.isCurrent, release };
  };
  const health = new Health(systemClock);
  const claims = new PfClaims({ locks: { folder: lockFolder, pf }, health, log: recordingLog() });
  for (let observations = 0; observations < 2; observations += 1) claims.ours(listOf(first));
  held.isCurrent = false;
  claims.ours(listOf(first));
  assert.equal(held.locks, 1);
  claims.close();
  assert.equal(held.locks, 0);
  const broken = () => {
    throw new TypeError("a mistake");
  };
  const odd = new PfClaims({
    locks: { folder: lockFolder, pf: broken },
    health: new Health(systemClock),
    log: recordingLog(),
  });
  assert.throws(() => odd.ours(listOf(first)), TypeError);
});
