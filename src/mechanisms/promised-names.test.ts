import assert from "node:assert/strict";
import { test } from "node:test";
import { first, kernelEntry, reconciledNode, second, vfioEntry } from "../../test/scenes/reconciled-node.ts";
import type { VfCondition } from "../inventory/index.ts";
import type { PciAddress } from "../pci/index.ts";
import { othersNames } from "./promised-names.ts";

const entry = kernelEntry(second);
const { name } = entry.state.original;

/** Two VFs, of which the second is with a client. */
function withClient(isHeld = true) {
  const { journal, inventory, give, lose } = reconciledNode(2);
  journal.vfs.set(second, entry);
  if (isHeld) give(second, "c1");
  const isPromised = (address: PciAddress = first, to = name) =>
    othersNames({ journal, inventory }, address).isPromised(to);
  const isKept = (by: string = second) => othersNames({ journal, inventory }, first).isKeptBy(by);
  return { journal, inventory, lose, isPromised, isKept };
}

test("a name is promised to the VF that had it before its client, whatever else of that was not as the host had it, and not to itself", async () => {
  const { journal, isPromised } = withClient();
  const { unrestored } = journal;
  assert.deepEqual([isPromised(), isPromised(second), isPromised(first, "eth7")], [true, false, false]);
  await unrestored.keep(second, { before: entry });
  assert.equal(isPromised(), true, "it did not take its MTU");
  await unrestored.keep(second, { isNameTaken: true });
  assert.equal(isPromised(), false, "it had another name when its client got it");
  await unrestored.keep(second, { isNameTaken: false });
  assert.equal(isPromised(), true);
});

test("a name is promised to a VF that had it before VFIO got it", async () => {
  const { journal, isPromised } = withClient();
  journal.vfs.set(second, vfioEntry(second));
  assert.equal(isPromised(), false, "it had no network device");
  await journal.unrestored.keep(second, { before: { state: entry.state } });
  assert.equal(isPromised(), true);
});

test("a name is promised to a VF that a connection has or that is being restored, not to one of which the journal alone knows", () => {
  const withIt = withClient();
  withIt.lose();
  assert.equal(withIt.isPromised(), false, "it is gone");
  const before = entry;
  for (const [conditions, expected] of [
    [[], false],
    [[{ code: "being-cleaned" }], true],
    [[{ code: "drifted", before }], true],
    [[{ code: "being-cleaned" }, { code: "host-use", how: "br0" }], false],
    [
      [
        { code: "drifted", before },
        { code: "write-stuck", error: "it hangs" },
      ],
      false,
    ],
    [[{ code: "being-cleaned" }, { code: "foreign-link", error: "another" }], false],
    [[{ code: "pf-not-managed" }], false],
  ] as const satisfies readonly (readonly [readonly VfCondition[], boolean])[]) {
    const { inventory, isPromised, isKept } = withClient(false);
    for (const condition of conditions) inventory.raise(second, condition);
    const said = conditions.map(({ code }) => code).join();
    assert.deepEqual([isPromised(), isKept()], [expected, !expected], said);
  }
});

test("a PCI function keeps its name that is no VF of this node, and a VF does that is free", () => {
  assert.deepEqual(
    [withClient().isKept("0000:07:00.0"), withClient().isKept(first), withClient().isKept()],
    [true, true, false],
  );
});
