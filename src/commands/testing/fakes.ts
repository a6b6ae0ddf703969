// What tests of commands play with.
import { systemClock } from "../../async/index.ts";
import type { CommandSettings, Surroundings, Terminal } from "../command.ts";

/** A terminal that remembers what was written. */
interface RecordingTerminal extends Terminal {
  readonly text: string;
}

export function recordingTerminal(form: Partial<Terminal> = {}): RecordingTerminal {
  let text = "";
  return {
    columns: 100,
    rows: 40,
    isScreen: false,
    hasColors: false,
    ...form,
    write: (more) => {
      text += more;
    },
    get text() {
      return text;
    },
  };
}

const someSettings: CommandSettings = {
  connectTo: "unix:///nowhere/nsm.io.sock",
  managerSpiffeId: undefined,
  devicePluginPath: "/nowhere/device-plugins/",
  podResourcesPath: "/nowhere/pod-resources/",
  sriovConfigFile: "/nowhere/pci.config",
  pciDevicesPath: "/nowhere/devices",
  pciDriversPath: "/nowhere/drivers",
  cgroupPath: "/nowhere/cgroup",
  vfioPath: "/nowhere/vfio",
  statePath: "/nowhere/state",
  spiffeEndpointSocket: undefined,
  adminListenOn: undefined,
};

/** Surroundings with terminals that remember. */
export function someSurroundings(settings: Partial<CommandSettings> = {}): Surroundings & {
  readonly out: RecordingTerminal;
  readonly err: RecordingTerminal;
} {
  return {
    version: "1.2.3",
    readBudget: async () => ({ memoryBytes: undefined, shortage: undefined, says: {} }),
    readPolicies: async () => ({ kind: "selected", names: ["a.rego"], warnings: [] }),
    environment: {
      settings: { ...someSettings, ...settings },
      problems: [],
      warnings: [],
      variables: [{ name: "NSM_NAME", standard: "sriov-forwarder" }],
    },
    out: recordingTerminal(),
    err: recordingTerminal(),
    clock: systemClock,
    signal: new AbortController().signal,
  };
}
