import assert from "node:assert/strict";
import { test } from "node:test";
import type { VfRecord } from "../inventory/index.ts";
import { type DriverBinder, DriverError, parsePciAddress } from "../pci/index.ts";
import { netdevPartsOf, type VfLinkParts } from "./netdev-parts.ts";

const address = parsePciAddress("0000:01:10.0");
const vf = { address, pf: parsePciAddress("0000:01:00.0"), index: 0, kernelDriver: "igbvf" } as VfRecord;

function linkWith(binder: Partial<DriverBinder>, settings?: object) {
  const parts = { links: { settings }, binder, pfDoor: () => ({}) } as unknown as VfLinkParts;
  return netdevPartsOf(parts, vf).vfLink;
}

test("index() of a VF with several links, while one goes and another comes, is none; a node that cannot be read is a failure", async () => {
  const failing = (error: Error) => linkWith({ netdevNow: () => Promise.reject(error) });
  assert.equal(await linkWith({ netdevNow: async () => ({ ifname: "eth1", ifindex: 7 }) }).index(), 7);
  assert.equal(await linkWith({ netdevNow: async () => undefined }).index(), undefined);
  assert.equal(await failing(new DriverError(address, { kind: "no-netdev" })).index(), undefined);
  await assert.rejects(failing(new Error("EIO")).index(), /EIO/);
});

test("mayCome() waits for a link of the kernel's own driver only", async () => {
  for (const [driver, mayCome] of [
    ["igbvf", true],
    ["vfio-pci", false],
    [undefined, false],
  ] as const) {
    assert.equal(await linkWith({ driverOf: async () => driver }).mayCome(), mayCome, driver);
  }
});

test("device() tells one instance in one boot from all others, where it can", async () => {
  const deviceOf = (instance: bigint | undefined, boot?: string) =>
    linkWith({ instanceOf: async () => instance }, boot === undefined ? undefined : { boot }).device();
  assert.equal(await deviceOf(7n, "boot-1"), "boot-1/7");
  assert.deepEqual([await deviceOf(7n), await deviceOf(undefined, "boot-1")], [undefined, undefined]);
});
