/** `blocking`: the forwarder cannot serve, it is not ready. `warning`: it serves, but the operator should find out why. */
export type Severity = "blocking" | "warning";

/** What is known of a condition before it is ever so. */
export interface ConditionSpec {
  readonly severity: Severity;
  /** Codes of conditions that bring this one about; while one of them is raised, this one is shown as its consequence. */
  readonly dependsOn?: readonly string[];
}

/**
 * Every health condition of the forwarder. A code stays what it is: alerts name it, and docs/operate.md has a section for each.
 * What can be wrong with one VF, `vf-quarantined` and `vf-withheld` in detail, is in src/inventory/vf-condition.ts.
 */
export const healthConditions = {
  "not-serving": {
    severity: "blocking",
    dependsOn: ["state-folder-held", "original-running", "not-registered"],
  },
  "state-folder-held": { severity: "blocking" },
  "original-running": { severity: "blocking" },
  "memory-too-little": { severity: "warning" },
  "journal-not-written": { severity: "blocking" },
  "svid-missing": { severity: "blocking" },
  "workload-api-lost": { severity: "warning" },
  "svid-expiring": { severity: "warning", dependsOn: ["workload-api-lost"] },
  "svid-expired": { severity: "blocking", dependsOn: ["workload-api-lost"] },
  "not-registered": { severity: "blocking", dependsOn: ["svid-missing", "svid-expired"] },
  "other-network-namespace": { severity: "blocking" },
  "pf-config-refused": { severity: "warning" },
  "pf-held-elsewhere": { severity: "warning" },
  "pf-unusable": { severity: "warning" },
  "pf-without-vfs": { severity: "warning" },
  "pf-without-carrier": { severity: "warning" },
  "pf-in-switchdev-mode": { severity: "warning" },
  "vf-driver-missing": { severity: "warning" },
  "vf-quarantined": { severity: "warning" },
  "vf-withheld": { severity: "warning" },
  "resource-not-registered": { severity: "warning" },
  "resource-offered-elsewhere": { severity: "warning" },
  "resource-name-refused": { severity: "warning" },
  "pod-resources-unknown": { severity: "warning" },
} as const satisfies Readonly<Record<string, ConditionSpec>>;

/** One of their codes. */
export type HealthCode = keyof typeof healthConditions;
