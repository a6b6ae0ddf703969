// The node as the status page shows it: a view of the inventory.
import type { Inventory, VfRecord, VfState } from "./sriov/index.ts";
import type { RowState, StatusRow, StatusSource } from "./telemetry/index.ts";

const rowStates: Readonly<Record<VfState, RowState>> = {
  idle: "idle",
  reserved: "busy",
  preparing: "busy",
  ready: "good",
  reclaiming: "busy",
  quarantined: "bad",
};

/** Facts and tables for the page, read anew at each view. */
export function nodeStatus(name: string, inventory: Inventory): StatusSource {
  return {
    facts() {
      const vfs = inventory.snapshot();
      const count = (state: VfState) => vfs.filter((vf) => vf.state === state).length;
      return [
        { name: "Forwarder", value: name },
        { name: "Virtual functions", value: `${vfs.length}: ${count("idle")} idle, ${count("ready")} with clients` },
        { name: "Resources", value: inventory.resources.join(", ") || "none" },
      ];
    },
    tables: () => [
      {
        title: "Virtual functions",
        columns: ["PF", "VF", "Address", "NUMA", "IOMMU group", "Driver", "State", "Connection", "Problem"],
        rows: inventory.snapshot().map(row),
        empty: "No physical function is configured, or none can be used",
      },
    ],
  };
}

function row(vf: VfRecord): StatusRow {
  return {
    cells: [
      vf.pf,
      String(vf.index),
      vf.address,
      vf.numaNode === undefined ? "–" : String(vf.numaNode),
      vf.iommuGroup === undefined ? "–" : String(vf.iommuGroup),
      vf.driver ?? "none",
      vf.state,
      vf.connectionId ?? "",
      vf.problem ?? "",
    ],
    state: vf.problem === undefined ? rowStates[vf.state] : "bad",
  };
}
