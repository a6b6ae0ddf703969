import { type PciAddress, parsePciAddress } from "./address.ts";
import { nearestWord } from "./nearest.ts";
import type { ListedFunction, Located, PfConfig, PfConfigIssue, PfEntry, PfSettings } from "./pf-config-form.ts";
import { capabilityProblem, serviceDomainProblem } from "./resource-name.ts";

/** No adapter has more virtual functions than this (ice: 256). */
const VFS_MAX = 256;
/** IFLA_VF_RATE carries an unsigned 32-bit number of Mbit/s. */
const RATE_MAX_MBPS = 0xffff_ffff;
const driverForm = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/;
const linkStates = ["auto", "enable", "disable"] as const;
const carrierRules = ["watch", "require", "ignore"] as const;
const hostUseRules = ["withhold", "create-vfs", "allow"] as const;

type Report = (at: Located, problem: string, hint?: string) => void;

/** A value of the file, its place, and how to report what is wrong with it. */
interface Spot {
  readonly at: Located;
  readonly path: string;
  readonly report: Report;
}

/** Turns the file's tree into a configuration; whatever is wrong is added to `issues`, and the result is then worthless. */
export function readPfConfig(tree: Located, issues: PfConfigIssue[]): PfConfig {
  const spot = (at: Located, path: string): Spot => ({
    at,
    path,
    report: (where, problem, hint) => {
      const { line, column } = where;
      issues.push({ line, column, path, problem, ...(hint === undefined ? {} : { hint }) });
    },
  });
  const top = readKeys(spot(tree, ""), spot, ["physicalFunctions"]);
  const list = top.get("physicalFunctions");
  const physicalFunctions: PfEntry[] = [];
  const seen = new Map<PciAddress, string>();
  for (const { name, value } of list ? mapEntries(list) : []) {
    const text = asText(name) ?? "";
    const at = spot(value, `physicalFunctions["${text}"]`);
    const address = readAddress(name, at.report, seen, at.path);
    const entry = readPf(at, spot, { address, seen });
    if (entry) physicalFunctions.push(entry);
  }
  return { physicalFunctions };
}

type MakeSpot = (at: Located, path: string) => Spot;

const pfKeys = [
  "pfKernelDriver",
  "vfKernelDriver",
  "capabilities",
  "serviceDomains",
  "virtualFunctions",
  "numVfs",
  "carrier",
  "hostUse",
  "spoofCheck",
  "trust",
  "linkState",
  "minTxRateMbps",
  "maxTxRateMbps",
] as const;

interface PfContext {
  readonly address: PciAddress | undefined;
  readonly seen: Map<PciAddress, string>;
}

function readPf(spot: Spot, make: MakeSpot, { address, seen }: PfContext): PfEntry | undefined {
  if (spot.at.kind === "nothing") {
    spot.report(spot.at, "has nothing under it: want pfKernelDriver, vfKernelDriver, capabilities and serviceDomains");
    return undefined;
  }
  const keys = readKeys(spot, make, pfKeys);
  if (spot.at.kind !== "map") return undefined;
  const need = (key: (typeof pfKeys)[number], want: string): Spot | undefined => {
    const found = keys.get(key);
    if (!found) make(spot.at, `${spot.path}.${key}`).report(spot.at, `is missing: want ${want}`);
    return found;
  };
  const pfKernelDriver = readDriver(need("pfKernelDriver", "the driver of the physical function, such as i40e"));
  const vfKernelDriver = readDriver(need("vfKernelDriver", "the kernel driver of its virtual functions, such as iavf"));
  const capabilities = readNames(need("capabilities", "a list such as [intel, 10G]"), make, capabilityProblem);
  const serviceDomains = readNames(
    need("serviceDomains", "a list such as [worker.domain]"),
    make,
    serviceDomainProblem,
  );
  const virtualFunctions = readListed(keys.get("virtualFunctions"), make, seen);
  const numVfs = readInteger(keys.get("numVfs"), 1, VFS_MAX);
  const carrier = readWord(keys.get("carrier"), carrierRules) ?? "watch";
  const hostUse = readWord(keys.get("hostUse"), hostUseRules) ?? "withhold";
  const settings = readSettings(keys);
  if (!address || !pfKernelDriver || !vfKernelDriver) return undefined;
  const names = { capabilities, serviceDomains, virtualFunctions };
  return { address, pfKernelDriver, vfKernelDriver, ...names, numVfs, carrier, hostUse, settings };
}

function readSettings(keys: ReadonlyMap<string, Spot>): PfSettings {
  const minTxRateMbps = readInteger(keys.get("minTxRateMbps"), 0, RATE_MAX_MBPS);
  const maxSpot = keys.get("maxTxRateMbps");
  const maxTxRateMbps = readInteger(maxSpot, 0, RATE_MAX_MBPS);
  if (maxSpot && minTxRateMbps && maxTxRateMbps && minTxRateMbps > maxTxRateMbps) {
    maxSpot.report(maxSpot.at, `is ${maxTxRateMbps}, less than minTxRateMbps (${minTxRateMbps})`);
  }
  return {
    spoofCheck: readBoolean(keys.get("spoofCheck")),
    trust: readBoolean(keys.get("trust")),
    linkState: readWord(keys.get("linkState"), linkStates),
    minTxRateMbps,
    maxTxRateMbps,
  };
}

/** The known keys of a map. Capitals do not count, as upstream's parser has it; everything else unknown is reported. */
function readKeys(spot: Spot, make: MakeSpot, known: readonly string[]): Map<string, Spot> {
  const found = new Map<string, Spot>();
  for (const { name, value } of mapEntries(spot)) {
    const text = asText(name) ?? "";
    const key = known.find((candidate) => candidate.toLowerCase() === text.toLowerCase());
    const path = spot.path ? `${spot.path}.${key ?? text}` : (key ?? text);
    if (!key) {
      const near = nearestWord(text, known);
      const hint = near ? `did you mean ${near}?` : `known here: ${known.join(", ")}`;
      make(name, path).report(name, "is no known key", hint);
    } else if (found.has(key)) {
      make(name, path).report(name, "is given twice");
    } else {
      found.set(key, make(value, path));
    }
  }
  return found;
}

function mapEntries(spot: Spot) {
  if (spot.at.kind === "map") return spot.at.entries;
  if (spot.at.kind !== "nothing") spot.report(spot.at, `is ${kindOf(spot.at)}: want keys with values`);
  return [];
}

function readAddress(at: Located, report: Report, seen: Map<PciAddress, string>, path: string): PciAddress | undefined {
  const text = asText(at) ?? "";
  try {
    const address = parsePciAddress(text);
    const before = seen.get(address);
    if (before) report(at, `names ${address}, which ${before} names already`);
    seen.set(address, path);
    return address;
  } catch {
    report(at, `is no PCI address: "${text}"`, "want domain:bus:device.function in hex, as in 0000:3b:02.1");
    return undefined;
  }
}

function readDriver(spot: Spot | undefined): string | undefined {
  if (!spot) return undefined;
  const text = readText(spot);
  if (text === undefined) return undefined;
  if (driverForm.test(text)) return text;
  spot.report(spot.at, `is "${text}": want the name of a driver, as in /sys/bus/pci/drivers`);
  return undefined;
}

function readNames(spot: Spot | undefined, make: MakeSpot, problemOf: (name: string) => string | undefined): string[] {
  if (!spot) return [];
  const names = new Set<string>();
  const items = listItems(spot);
  if (spot.at.kind === "list" && items.length === 0) spot.report(spot.at, "is empty: want at least one");
  items.forEach((item, index) => {
    const at = make(item, `${spot.path}[${index}]`);
    const text = readText(at);
    if (text === undefined) return;
    const problem = problemOf(text);
    if (problem) at.report(item, `is "${text}", which ${problem}`);
    else if (names.has(text)) at.report(item, `is "${text}" once more: each only once`);
    names.add(text);
  });
  return [...names];
}

function readListed(spot: Spot | undefined, make: MakeSpot, seen: Map<PciAddress, string>): ListedFunction[] {
  if (!spot || spot.at.kind === "nothing") return [];
  return listItems(spot).flatMap((item, index) => {
    const at = make(item, `${spot.path}[${index}]`);
    const keys = readKeys(at, make, ["address", "iommuGroup"]);
    const addressSpot = keys.get("address");
    if (!addressSpot) {
      if (item.kind === "map" || item.kind === "nothing") at.report(item, "has no address");
      return [];
    }
    const address = readAddress(addressSpot.at, addressSpot.report, seen, at.path);
    const iommuGroup = readInteger(keys.get("iommuGroup"), 0, Number.MAX_SAFE_INTEGER);
    return address ? [{ address, iommuGroup }] : [];
  });
}

function listItems(spot: Spot): readonly Located[] {
  if (spot.at.kind === "list") return spot.at.items;
  spot.report(spot.at, `is ${kindOf(spot.at)}: want a list`, "as in [a, b], or one a line after -");
  return [];
}

function readText(spot: Spot): string | undefined {
  const text = asText(spot.at);
  if (text === undefined || text === "") spot.report(spot.at, `is ${kindOf(spot.at)}: want text`);
  return text === "" ? undefined : text;
}

function readInteger(spot: Spot | undefined, least: number, most: number): number | undefined {
  const isFit = (value: unknown) =>
    typeof value === "number" && Number.isInteger(value) && value >= least && value <= most;
  return readValue(spot, (value): value is number => isFit(value), `a whole number from ${least} to ${most}`);
}

function readBoolean(spot: Spot | undefined): boolean | undefined {
  return readValue(spot, (value) => typeof value === "boolean", "true or false");
}

function readWord<T extends string>(spot: Spot | undefined, words: readonly T[]): T | undefined {
  const desired = `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
  return readValue(spot, (value): value is T => words.some((known) => known === value), desired);
}

function readValue<T>(spot: Spot | undefined, isFit: (value: unknown) => value is T, want: string): T | undefined {
  if (!spot) return undefined;
  const value = spot.at.kind === "scalar" ? spot.at.value : undefined;
  if (isFit(value)) return value;
  spot.report(spot.at, `is ${kindOf(spot.at)}: want ${want}`);
  return undefined;
}

/** Text, or a number or truth value spelt as text: upstream's parser takes `10` for "10" wherever it wants text. */
function asText(at: Located): string | undefined {
  if (at.kind !== "scalar") return undefined;
  return typeof at.value === "string" ? at.value : String(at.value);
}

function kindOf(at: Located): string {
  if (at.kind === "map") return "a map";
  if (at.kind === "list") return "a list";
  if (at.kind === "nothing") return "empty";
  if (at.kind === "too-deep") return "nested too deeply";
  return typeof at.value === "string" ? `"${at.value}"` : String(at.value);
}
