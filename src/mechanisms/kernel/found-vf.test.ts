import assert from "node:assert/strict";
import { test } from "node:test";
import { paperUnrestored } from "../../../test/scenes/paper-unrestored.ts";
import { Inventory, type VfCondition } from "../../inventory/index.ts";
import type { Netns } from "../../kernel/index.ts";
import type { AttachmentState, HostLinks } from "../../netdev/index.ts";
import { type DriverBinder, parsePciAddress } from "../../pci/index.ts";
import { recordingLog } from "../../telemetry/recording-log.ts";
import type { KernelVfEntry } from "../journal-entries.ts";
import { type FoundVfParts, takeFound } from "./found-vf.ts";

const pf = parsePciAddress("01:00.0");
const [first, second] = [parsePciAddress("01:10.0"), parsePciAddress("01:10.2")];
const TOKEN = "sriov-3b2f6a1e-6c1d-4f0e-9a77-0c5a3a1d9e01";
const MISSING = { code: "netdev-missing" } as const;
const netns = { text: "inode://4/1", dev: 4n, ino: 1n };

interface Found {
  readonly conditions?: readonly VfCondition[];
  /** What kubelet has said that a pod has. */
  readonly allocated?: string;
  /** Whose link is called nsm-1 in the client's namespace; undefined: none is. */
  readonly owner?: string | undefined;
  readonly entry?: Partial<KernelVfEntry>;
  /** The connection that has the token's VF. */
  readonly holder?: string;
}

/** A Request for nsm-1 on a node with two VFs, of which the second is not in the host. */
async function taken(found: Found) {
  const { conditions = [MISSING], allocated = TOKEN, owner, entry, holder } = found;
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const common = { pf, iommuGroup: undefined, numaNode: undefined, kernelDriver: "igbvf", driver: "igbvf" };
  inventory.sync(
    pf,
    [first, second].map((address, index) => ({ ...common, address, index, resources: ["d/x"] })),
  );
  inventory.adoptToken(allocated, "d/x");
  if (holder) inventory.take({ connectionId: holder, tokenId: allocated, use: "kernel" });
  for (const condition of conditions) inventory.raise(second, condition);
  const link = { index: 7, name: "nsm-1", altNames: [], mtu: 9000, address: "0a:00:00:00:00:01", up: true };
  const place = { rtnl: { linkByName: async () => (owner === undefined ? undefined : link) } };
  const links = {
    inClient: async (_client: unknown, _name: string, work: (at: unknown) => unknown) => await work(place),
    linkOwnerOf: async () => ({ pciFunction: owner, text: "" }),
    random: { bytes: (count: number) => Buffer.alloc(count) },
  } as unknown as HostLinks;
  const client = { id: { dev: 4n, ino: 1n }, open: 0, close: () => void client.open-- };
  const kept = entry && ({ use: "kernel", address: second, state: {}, ...entry } as KernelVfEntry);
  const journal = { vfs: new Map(kept ? [[second, kept]] : []), unrestored: paperUnrestored() };
  const survey = { pfs: new Map([[pf, { ifname: "ens1f0" }]]) } as unknown as FoundVfParts["survey"];
  const desired = { type: "KERNEL", tokenId: TOKEN, interfaceName: "nsm-1", netns, bare: false } as const;
  const binder = {} as DriverBinder;
  const parts = { links, binder, inventory, journal, survey, log: recordingLog() };
  const receive = async () => {
    client.open += 1;
    return client as unknown as Netns;
  };
  let received = 0;
  const count = () => {
    received += 1;
    return receive();
  };
  const result = await takeFound(parts, { connectionId: "c1", desired }, count);
  return { result, inventory, received, open: client.open, vf: inventory.get(second) };
}

test("takeFound() notes the VF whose link the client has under the name that it requests", async () => {
  const { result, vf, open } = await taken({ owner: second });
  assert.deepEqual([vf?.connectionId, vf?.tokenId, vf?.state, vf?.conditions], ["c1", TOKEN, "preparing", []]);
  assert.equal(open, 1, "the namespace is the caller's");
  const { original, clientIndex, vfBefore, name } = result?.state ?? assert.fail();
  assert.deepEqual([name, clientIndex, vfBefore], ["nsm-1", 7, { mac: "00:00:00:00:00:00", vlan: 0 }]);
  // Nothing of the client's is taken for the host's.
  assert.deepEqual([original.name, original.mtu, original.address, original.up], ["ens1f0v1", 1500, undefined, false]);
});

test("takeFound() asks for no namespace where no VF is away, where kubelet has given the token to none, and where more is wrong", async () => {
  for (const found of [
    { conditions: [] },
    { allocated: "sriov-another" },
    { conditions: [MISSING, { code: "write-stuck", error: "it hangs" }] },
  ] as const) {
    const { result, received } = await taken({ owner: second, ...found });
    assert.deepEqual([result, received], [undefined, 0]);
  }
});

test("takeFound() takes no other link for the client's VF, and keeps no handle", async () => {
  for (const owner of [undefined, first, "0000:05:00.0"]) {
    const { result, open, vf } = await taken({ owner });
    assert.deepEqual([result, open, vf?.connectionId, vf?.conditions], [undefined, 0, undefined, [MISSING]]);
  }
});

test("takeFound() leaves a VF that the journal has for another client, and takes what it has for this one", async () => {
  const conditions = [{ code: "contradicts-journal", error: "it was out" }] as const;
  const state = { original: { name: "eth5" } } as AttachmentState;
  const its = { tokenId: TOKEN, netns: "4/1", connectionId: "c0", state };
  for (const entry of [
    { ...its, tokenId: "sriov-another" },
    { ...its, netns: "4/2" },
  ]) {
    const { result, open } = await taken({ owner: second, conditions, entry });
    assert.deepEqual([result, open], [undefined, 0]);
  }
  const { result } = await taken({ owner: second, conditions, entry: its });
  assert.deepEqual(result?.state, { ...state, clientIndex: 7 });
});

test("takeFound() leaves a token to the connection that holds its VF", async () => {
  const { result, open, vf } = await taken({ owner: second, holder: "c0" });
  assert.deepEqual([result, open, vf?.conditions], [undefined, 0, [MISSING]]);
});
