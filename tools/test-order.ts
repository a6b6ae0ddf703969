// Which test files take longest, so that a run on two cores does not end with one of them alone.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, isAbsolute, join } from "node:path";

const root = join(import.meta.dirname, "..");
const path = join(root, ".cache", "test-times.json");

/** Words of paths whose files take long, and for how many seconds on two cores: for a clone that has run nothing yet. */
const KNOWN_AS_LONG: Readonly<Record<string, number>> = {
  "sandbox/killed-vfio": 90,
  "sandbox/killed-unsynced": 60,
  "sandbox/large-journal": 40,
  "sandbox/restart-orders": 30,
  "sandbox/rotation": 30,
  "sandbox/process-exit": 25,
  "sandbox/upgrade": 25,
  "sandbox/one-observation": 25,
  "sandbox/tenants": 20,
  "sandbox/cards": 20,
  "sandbox/killed": 20,
  "sandbox/page": 15,
  "sandbox/crowd": 15,
  "sandbox/threads": 15,
  "sandbox/second-forwarder": 15,
  "sandbox/callback-errors": 10,
  "sandbox/vfio": 10,
  "sandbox/kubelet": 10,
  "sandbox/host-use": 10,
  "sandbox/forwarder": 10,
  "sandbox/interrupted": 10,
  "real/access-cycles": 10,
  "real/capabilities": 10,
  "simulation/scenarios": 30,
  "tools/test-files": 25,
  "src/main": 15,
  "src/identity/": 2,
  "src/rpc/": 1,
  "src/nsm/": 0.5,
};

/** How long files took at their last run here, in ms. */
export type TestTimes = Readonly<Record<string, number>>;

/** Unit tests that share a process: those of one module, whose modules are loaded once then. The simulation takes as long as a module. */
const ROOM = /^(.*\/)?src\/[^/]+\/|^sandbox\/(simulation\/)?/;

/**
 * Sandbox and real tests that share a process: they look at nothing that belongs to it. Others load 500 modules for themselves. Those of
 * a line take less than a minute together.
 */
const TOGETHER: readonly (readonly string[])[] = [
  ["admin-doors", "admin", "change-watch", "connection-life", "discover", "quota", "status"],
  ["bad-requests", "forwarder", "reconcile", "peers-refused"],
  ["other-plugin", "page", "sandbox", "state-folder", "traces"],
  ["host-use-pf", "kernel-connection", "late-vfs", "nsm-peers", "pod-death"],
  ["check", "foreign-client", "identity-ends", "journal-fixtures", "manager-identity", "unreadable-entry"],
  ["clock-set", "hot-plug", "original-running", "peers-die", "restart"],
  ["bad-endpoints", "host-use", "interrupted", "kubelet"],
  ["attacks", "vfio-groups", "vfio-restart", "vfio-unified"],
].map((names) => names.map((name) => `test/sandbox/${name}.test.ts`));

const REAL_TOGETHER: readonly (readonly string[])[] = [
  [
    "kernel-uevents",
    "netdev-attach",
    "netdev-crowded",
    "netdev-leave",
    "netdev-mac",
    "netdev-restore",
    "netdev-transient",
  ],
  ["link-identity", "link-settings", "netlink-contract", "sandbox-machine", "sandbox-pod", "taken-names"],
  ["access-filters", "access-grant", "access-hierarchy", "access-keep", "kernel-devices"],
].map((names) => names.map((name) => `test/real/${name}.test.ts`));

const groupOfFile = new Map(
  [...TOGETHER, ...REAL_TOGETHER].flatMap((files, at) => files.map((file) => [file, `shared ${at}`])),
);

/** The tests of those two tiers that share a process. */
export const sharingTests: readonly string[] = [...groupOfFile.keys()];

/** The files in the order given, with those together that share a process. */
export function groupsOf(files: readonly string[]): readonly (readonly string[])[] {
  const nameOf = (file: string) => ROOM.exec(file)?.[0] ?? groupOfFile.get(file) ?? file;
  return [...Map.groupBy(files, nameOf).values()];
}

/** The groups with the longest first; those that never ran here by what is known of them. */
export function longestFirst(groups: readonly (readonly string[])[], times: TestTimes): readonly (readonly string[])[] {
  const known = Object.entries(KNOWN_AS_LONG);
  const guess = (file: string) => 1000 * (known.find(([word]) => file.includes(word))?.[1] ?? 0);
  const expected = (group: readonly string[]) => group.reduce((sum, file) => sum + (times[file] ?? guess(file)), 0);
  return [...groups].sort((a, b) => expected(b) - expected(a) || (String(a) < String(b) ? -1 : 1));
}

export function readTestTimes(): TestTimes {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as TestTimes;
  } catch {
    return {}; // nothing ran here yet, or another version wrote it: only the order depends on it
  }
}

/** Keeps the times of the checkout's own files for the next run. A checkout that cannot be written to goes without. */
export function keepTestTimes(times: TestTimes): void {
  try {
    const ours = Object.entries(times).filter(([file]) => !isAbsolute(file));
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, `${JSON.stringify({ ...readTestTimes(), ...Object.fromEntries(ours) }, undefined, 1)}\n`);
  } catch {
    // only the order depends on it
  }
}
