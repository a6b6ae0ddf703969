import assert from "node:assert/strict";
import { test } from "node:test";
import type { Link, Rtnl, VfChange } from "../kernel/index.ts";
import { rtnlPfPort } from "./pf-port.ts";
import type { VfSettings } from "./vf-settings-through-pf.ts";

const address = "0000:3b:00.0";
const NO_LIMITS = { minTxRateMbps: 0, maxTxRateMbps: 0 };

/** A PF of four VFs, link 4, that reports the VFs in `reported`. */
function setUp(reported: Readonly<Record<number, VfSettings>>) {
  const node = { link: { index: 4 } as Link | undefined, reported, written: [] as unknown[] };
  const rtnl = {
    async vfInfos(index: number, vf?: number) {
      assert.equal(index, node.link?.index);
      return vf === undefined ? Object.values(node.reported) : node.reported[vf] ? [node.reported[vf]] : [];
    },
    vfCount: async () => 4,
    async setVf(index: number, vf: number, change: VfChange) {
      node.written.push([index, vf, change]);
    },
  } as unknown as Rtnl;
  const memory = { hasReported: false };
  const port = rtnlPfPort(rtnl, { address, ifname: "ens6f0", driver: "ice" }, { link: async () => node.link, memory });
  return { node, memory, port };
}

test("rtnlPfPort() finds the PF's link at each use, and says so where it has gone", async () => {
  const { node, port } = setUp({ 1: { mac: "02:00:00:00:00:01", vlan: 7 } });
  assert.equal((await port.read(1)).vlan, 7);
  node.link = { index: 9 } as Link;
  assert.equal((await port.read(1)).vlan, 7);
  await port.write(1, { vlan: 0 });
  assert.deepEqual(node.written, [[9, 1, { vlan: 0 }]]);
  node.link = undefined;
  const gone = { fault: { kind: "gone", link: `of PF ${address}`, where: "the host's namespace" } };
  await assert.rejects(port.read(1), gone);
  await assert.rejects(port.write(1, { vlan: 0 }), gone);
});

test("rtnlPfPort() reads a driver that has never reported a VF as one that knows no settings", async () => {
  const { port, memory } = setUp({});
  assert.deepEqual(await port.read(1), {});
  assert.equal(memory.hasReported, false);
});

test("rtnlPfPort() takes a driver that leaves a VF out for busy when it has reported before, or reports others", async () => {
  const { node, port, memory } = setUp({ 1: { vlan: 0 } });
  await assert.rejects(port.read(2), { name: "KernelError", code: "EAGAIN" });
  assert.equal(memory.hasReported, false);
  await port.read(1);
  node.reported = {};
  await assert.rejects(port.read(1), { name: "KernelError", code: "EAGAIN" });
});

test("rtnlPfPort() says that a VF is gone where the PF has no such number", async () => {
  const { port } = setUp({});
  await assert.rejects(port.read(4), { fault: { kind: "gone", link: "VF 4", where: "the list of PF link 4" } });
});

for (const [says, info, requested, rate] of [
  ["the lower limit", { minTxRateMbps: 10, maxTxRateMbps: 50 }, { minTxRateMbps: 20 }, { minMbps: 20, maxMbps: 50 }],
  ["the upper limit", { minTxRateMbps: 10, maxTxRateMbps: 50 }, { maxTxRateMbps: 40 }, { minMbps: 10, maxMbps: 40 }],
  ["no limit", { minTxRateMbps: 10, maxTxRateMbps: 50 }, NO_LIMITS, { minMbps: 0, maxMbps: 0 }],
  ["the upper limit of a driver that knows none", {}, { maxTxRateMbps: 40 }, { minMbps: 0, maxMbps: 40 }],
] as const) {
  test(`rtnlPfPort() writes ${says}, and the one that is not requested stays`, async () => {
    const { node, port } = setUp({ 1: info });
    await port.write(1, requested);
    assert.deepEqual(node.written, [[4, 1, { rate }]]);
  });
}

test("rtnlPfPort() writes what is requested and nothing besides", async () => {
  const { node, port } = setUp({ 1: { minTxRateMbps: 10 } });
  const change = { mac: "02:00:00:00:00:01", vlan: 0, spoofCheck: false, trust: false, linkState: "auto" } as const;
  await port.write(1, change);
  assert.deepEqual(node.written, [[4, 1, change]]);
});
