import assert from "node:assert/strict";
import { test } from "node:test";
import { paperUnrestored } from "../../test/scenes/paper-unrestored.ts";
import { first, kernelEntry, second, vfioEntry } from "../../test/scenes/paper-vfs.ts";
import type { PciAddress } from "../pci/index.ts";
import type { VfEntry } from "./journal-entries.ts";
import { isNamePromised } from "./promised-names.ts";

const NAME = kernelEntry(second).state.original.name;
const promised = (entry: VfEntry, unrestored = paperUnrestored()) =>
  isNamePromised({ vfs: new Map<PciAddress, VfEntry>([[entry.address, entry]]), unrestored }, first, NAME);

test("isNamePromised() is the name of another VF that is out, and of none that is away otherwise or waits for it itself", async () => {
  assert.equal(promised(kernelEntry(second)), true);
  assert.equal(promised({ ...kernelEntry(second), isLeft: true }), true, "it is being cleaned");
  assert.equal(promised({ ...kernelEntry(second), address: first }), false, "its own");
  assert.equal(promised({ ...kernelEntry(first), address: second }), false, "another name");
  assert.equal(promised(vfioEntry(second)), false, "it has no network device");
  const waiting = paperUnrestored();
  await waiting.keep(second, { before: kernelEntry(second) });
  assert.equal(promised(kernelEntry(second), waiting), false, "it had another name when its client got it");
});
