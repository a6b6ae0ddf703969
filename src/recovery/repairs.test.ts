import assert from "node:assert/strict";
import { test } from "node:test";
import type { VfRecord } from "../sriov/index.ts";
import { type Repair, repairOf, type VfSight } from "./repairs.ts";

const record = {
  state: "idle",
  driver: "igbvf",
  kernelDriver: "igbvf",
  iommuGroup: 7,
  conditions: [],
  connectionId: undefined,
} as unknown as VfRecord;

type Change = Partial<Omit<VfSight, "record" | "kept">> & Partial<VfRecord> & { readonly kept?: true };

function sightOf({ state, conditions, connectionId, kept, ...sight }: Change): VfSight {
  return {
    record: {
      ...record,
      ...(state && { state }),
      ...(conditions && { conditions }),
      ...(connectionId !== undefined && { connectionId }),
    },
    isPresent: true,
    driver: "igbvf",
    iommuGroup: 7,
    hasNetdev: true,
    kept: kept && ({} as VfSight["kept"]),
    isContradicting: false,
    isHidden: false,
    isGranted: false,
    isUnmet: false,
    wasOdd: false,
    wasMissing: false,
    isSpoilt: false,
    ...sight,
  };
}

const quarantined = { state: "quarantined" } as const;
const gone = { ...quarantined, conditions: [{ code: "gone" }] } as const;
const ready = { state: "ready", connectionId: "c1" } as const;
const restored = { ...quarantined, kept: true, isContradicting: true } as const;

const rows: readonly (readonly [says: string, change: Change, repair: Repair | undefined])[] = [
  ["leaves what is idle and at home", {}, undefined],
  ["leaves a difference that is seen for the first time", { driver: "vfio-pci" }, undefined],
  ["looks anew when a driver was changed", { driver: "vfio-pci", wasOdd: true }, "look-anew"],
  ["looks anew when an IOMMU group is lost", { iommuGroup: undefined, wasOdd: true }, "look-anew"],
  ["looks anew when a function is gone", { isPresent: false, wasOdd: true }, "look-anew"],
  ["leaves one that is known to be gone", { ...gone, isPresent: false, wasOdd: true }, undefined],
  ["never touches what a client has", { ...ready, hasNetdev: false, wasMissing: true }, undefined],
  ["leaves a client that has come back, wherever the device is", { ...ready, kept: true }, undefined],
  ["leaves a driver change of a Request that runs", { ...ready, state: "preparing", driver: undefined }, undefined],
  ["ends a connection whose namespace has ended", { ...ready, isUnmet: true }, "end-connection"],
  ["waits for a client that has not come back", { ...ready, isUnmet: true, hasNetdev: false }, undefined],
  ["restores what a contradiction kept back", restored, "restore"],
  ["binds it first when somebody has unbound it", { ...restored, driver: undefined, hasNetdev: false }, undefined],
  ["waits as long as it is elsewhere", { ...restored, hasNetdev: false }, undefined],
  ["leaves what others keep back", { ...quarantined, kept: true }, undefined],
  ["restores what the journal still has of an idle one", { kept: true }, "restore"],
  ["restores what was spoilt after it came home", { isSpoilt: true }, "restore"],
  ["cleans what returned from a namespace nobody knew", { ...quarantined, isHidden: true }, "clean"],
  ["takes back what a pod has by VFIO and nothing explains", { ...quarantined, isGranted: true }, "take-back"],
  ["leaves to its connection what a pod has by VFIO", { ...ready, isGranted: true }, undefined],
  [
    "leaves what the host uses now, whatever it was",
    { isSpoilt: true, conditions: [{ code: "host-use", how: "it is a port of br0" }] },
    undefined,
  ],
  ["waits for what is hidden", { ...quarantined, isHidden: true, hasNetdev: false }, undefined],
  ["lets a driver settle first", { hasNetdev: false }, undefined],
  ["keeps back what is free and not here", { hasNetdev: false, wasMissing: true }, "keep-back"],
];
for (const [says, change, repair] of rows) {
  test(`repairOf() ${says}`, () => {
    assert.equal(repairOf(sightOf(change)), repair);
  });
}

test("repairOf() knows nothing of network devices where another driver serves", () => {
  const record = { ...sightOf({}).record, driver: undefined };
  const unbound = { ...sightOf({ hasNetdev: false, driver: undefined, wasMissing: true }), record };
  assert.equal(repairOf(unbound), undefined);
  assert.equal(repairOf({ ...unbound, kept: {} as VfSight["kept"] }), "rebind");
  const quarantined = { ...record, state: "quarantined" } as const;
  assert.equal(repairOf({ ...unbound, record: quarantined, isHidden: true }), "clean");
});
