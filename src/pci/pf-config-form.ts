import type { PciAddress } from "./address.ts";

/** What the configuration file says: which physical functions we manage, in the order of the file. */
export interface PfConfig {
  readonly physicalFunctions: readonly PfEntry[];
}

/** One physical function of the file. */
export interface PfEntry {
  readonly address: PciAddress;
  /** The driver of the PF itself; only compared and reported, never enforced. */
  readonly pfKernelDriver: string;
  /** The driver that makes a network device of a virtual function. */
  readonly vfKernelDriver: string;
  readonly capabilities: readonly string[];
  readonly serviceDomains: readonly string[];
  /** Virtual functions the file lists. The real ones are read from the kernel; a difference is only reported. */
  readonly virtualFunctions: readonly ListedFunction[];
  /** How many virtual functions to make when there are none; undefined means as many as the hardware has. */
  readonly numVfs: number | undefined;
  /** Whether its VFs are unhealthy without a carrier: "watch", once it had one; "require", from the start. */
  readonly carrier: "watch" | "require" | "ignore";
  /**
   * What may be done to PFs and VFs that the host uses itself: "withhold", nothing; "create-vfs", virtual functions are made on a
   * physical one in use; "allow", that, and virtual ones in use are given to pods.
   */
  readonly hostUse: "withhold" | "create-vfs" | "allow";
  /** What every virtual function of this one gets before a client does. */
  readonly settings: PfSettings;
}

/** A virtual function as the file lists it. */
export interface ListedFunction {
  readonly address: PciAddress;
  readonly iommuGroup: number | undefined;
}

/** Settings made through the physical function; undefined leaves the driver's own value. */
export interface PfSettings {
  readonly spoofCheck: boolean | undefined;
  readonly trust: boolean | undefined;
  readonly linkState: "auto" | "enable" | "disable" | undefined;
  readonly minTxRateMbps: number | undefined;
  /** 0 means no limit. */
  readonly maxTxRateMbps: number | undefined;
}

/** A place in the file; both count from 1. */
export interface Place {
  readonly line: number;
  readonly column: number;
}

/** One thing that is wrong in the file. */
export interface PfConfigIssue extends Place {
  /** For example `physicalFunctions["0000:01:00.0"].capabilities[1]`; empty for the file as a whole. */
  readonly path: string;
  /** Continues a sentence whose subject is the path: "is missing: want the name of a driver". */
  readonly problem: string;
  readonly hint?: string;
}

/** What of a file that may be another program's is repeated: its log has a line of it, not the file. */
const ISSUES_SHOWN = 50;
const TEXT_SHOWN = 200;

/** The file cannot be used; the message lists the issues, one a line, as far as an operator reads on. */
export class PfConfigError extends Error {
  override readonly name = "PfConfigError";
  readonly issues: readonly PfConfigIssue[];

  constructor(fileName: string, issues: readonly PfConfigIssue[]) {
    const lines = issues.slice(0, ISSUES_SHOWN).map(({ line, column, path, problem, hint }) => {
      const what = `${shown(path) || "the file"} ${shown(problem)}${hint ? ` (${hint})` : ""}`;
      return `${fileName}:${line}:${column}: ${what}`;
    });
    if (issues.length > ISSUES_SHOWN) lines.push(`${fileName}: and ${issues.length - ISSUES_SHOWN} more like these`);
    super(`Cannot use the PF configuration:\n${lines.join("\n")}`);
    this.issues = issues;
  }
}

/** On one line, its beginning and its end: what was expected stands last. */
function shown(text: string): string {
  const line = text.replace(/[\p{Cc}\p{Zl}\p{Zp}]/gu, "?");
  return line.length <= TEXT_SHOWN ? line : `${line.slice(0, TEXT_SHOWN / 2)} … ${line.slice(-TEXT_SHOWN / 2)}`;
}

/** A value of the file with its place, free of the YAML library's own classes. */
export type Located = Place &
  (
    | { readonly kind: "map"; readonly entries: readonly { readonly name: Located; readonly value: Located }[] }
    | { readonly kind: "list"; readonly items: readonly Located[] }
    | { readonly kind: "scalar"; readonly value: unknown }
    | { readonly kind: "nothing" }
    | { readonly kind: "too-deep" }
  );
