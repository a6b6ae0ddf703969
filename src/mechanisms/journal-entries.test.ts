import assert from "node:assert/strict";
import { test } from "node:test";
import type { AttachmentState } from "../netdev/index.ts";
import { parsePciAddress } from "../pci/index.ts";
import { type KernelVfEntry, readVf, storedVf, type VfioVfEntry } from "./journal-entries.ts";

const address = parsePciAddress("01:10.0");
const ids = { address, connectionId: "c1", tokenId: "t" };
const state = { name: "nsm-1", owned: { addresses: [], tables: [], mtu: false } } as unknown as AttachmentState;

// docs/migrate.md: back to an earlier version. Those before decision 054 read what they know, and leave a field more alone.
test("storedVf() writes a VF that was found as any other, and one field more", () => {
  const kernel: KernelVfEntry = { use: "kernel", ...ids, netns: "4/40", state };
  const vfio: VfioVfEntry = { use: "vfio", ...ids, owner: "uid", grant: undefined, before: {} };
  for (const entry of [kernel, vfio]) {
    const found = { ...entry, isFound: true } as const;
    assert.deepEqual(storedVf(found), { ...storedVf(entry), isFound: true });
    assert.deepEqual(
      readVf(storedVf(found), () => undefined),
      found,
    );
  }
  assert.ok(!("use" in storedVf(kernel)), "version 1 has it so");
});
