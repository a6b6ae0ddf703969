import { parseArgs } from "node:util";

/** What the command line asks for. */
export interface BenchOptions {
  /** A short run, with fewer samples. */
  readonly isQuick: boolean;
  /** Innocents under attack, and nothing else. */
  readonly isHostileOnly: boolean;
  readonly isHelpWanted: boolean;
  /** Where the figures go as JSON. */
  readonly jsonFile: string | undefined;
  /** Rounds of Request and Close, instead of the measurements; 0 for none. */
  readonly cycles: number;
  /** Where the forwarder's log goes; it writes one all the same. */
  readonly logFile: string | undefined;
  /** Folder for a CPU profile of each of the forwarder's processes. */
  readonly profileFolder: string | undefined;
}

export const usage = `npm run bench [-- --quick] [-- --hostile] [-- --json FILE] [-- --cycles N]

Measures the forwarder on a pretend node: its peers are in one process, the pretend card and the forwarder in another, with
real sockets, mutual TLS, passed descriptors, network namespaces and veth links between them. docs/bench.md says how to read
the figures.

  --quick         fewer samples: less than a minute; without innocents under attack
  --hostile       innocents under attack and nothing else: a minute
  --json FILE     the figures as JSON, too
  --cycles N      N rounds of Request and Close instead, and what they leave behind: descriptors, namespaces, memory
  --log FILE      the forwarder's log
  --profile DIR   a CPU profile of each process of the forwarder, for the tools of a browser
  --help          this text

Needs root or the right to make a user namespace (unshare -rn); without, only what needs no links is measured. Innocents under
attack need root and a memory cgroup, as npm run hostile does.
`;

/** Undefined when an argument is unknown or cannot be read. */
export function readOptions(args: readonly string[]): BenchOptions | undefined {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        quick: { type: "boolean" },
        hostile: { type: "boolean" },
        help: { type: "boolean", short: "h" },
        json: { type: "string" },
        cycles: { type: "string" },
        log: { type: "string" },
        profile: { type: "string" },
      },
    });
    const { cycles = "0" } = values;
    if (!/^\d{1,7}$/.test(cycles)) return undefined;
    return {
      isQuick: values.quick === true,
      isHostileOnly: values.hostile === true,
      isHelpWanted: values.help === true,
      jsonFile: values.json,
      cycles: Number(cycles),
      logFile: values.log,
      profileFolder: values.profile,
    };
  } catch {
    return undefined;
  }
}
