import type { PciAddress } from "../../pci/index.ts";
import { counted } from "../text.ts";
import type { Adapter, AdapterLink, NodeAdapters } from "./adapter.ts";
import { knownVfDriver, vendorCapability } from "./known-drivers.ts";

/** A value of the file, and why it is this one. */
export interface Reasoned<T> {
  readonly value: T;
  readonly why: string;
}

/** A physical function that goes into the file. */
export interface ChosenPf {
  readonly address: PciAddress;
  /** What it is, and what is to be known of it. */
  readonly says: readonly string[];
  readonly pfKernelDriver: Reasoned<string>;
  readonly vfKernelDriver: Reasoned<string>;
  readonly capabilities: readonly Reasoned<string>[];
  readonly serviceDomains: readonly Reasoned<string>[];
  /** Undefined when it has virtual functions: their number is not changed then. */
  readonly mostVfs: number | undefined;
}

/** What does not go into the file. */
export interface LeftOut {
  readonly address: PciAddress;
  /** Name of its network device, driver or class, to recognise it by. */
  readonly name: string;
  readonly why: string;
  readonly todo?: string;
}

interface ChoiceOptions {
  /** Named on the command line; none: the usual placeholder. */
  readonly serviceDomains: readonly string[];
  /** Addresses or network devices to take; none: all that can be used. */
  readonly only: readonly string[];
}

/** What becomes of each adapter of the node. */
export interface Choice {
  readonly chosen: readonly ChosenPf[];
  readonly leftOut: readonly LeftOut[];
  /** Requested by name, and not there at all. */
  readonly unknown: readonly string[];
}

/** What the README's example has too. */
const PLACEHOLDER_DOMAIN = "service.domain.1";
const NETWORK_CLASS = 0x02;
const VFIO_DRIVER = "vfio-pci";

/** Chooses the physical functions that can be used, and gives the reason for each value and each one left out. */
export function choosePfs({ adapters, defaultRoutes }: NodeAdapters, options: ChoiceOptions): Choice {
  const chosen: ChosenPf[] = [];
  const leftOut: LeftOut[] = [];
  for (const adapter of adapters.filter(({ isVirtual }) => !isVirtual)) {
    const { address } = adapter;
    const obstacle = obstacleOf(adapter);
    const isWanted = options.only.length === 0 || namesOf(adapter).some((name) => options.only.includes(name));
    if (!isWanted) leftOut.push({ address, name: nameOf(adapter), why: "not asked for" });
    else if (obstacle) leftOut.push({ address, name: nameOf(adapter), ...obstacle });
    else chosen.push(chosenPf(adapter, defaultRoutes, options));
  }
  const known = new Set(adapters.filter(({ isVirtual }) => !isVirtual).flatMap(namesOf));
  return { chosen, leftOut, unknown: options.only.filter((name) => !known.has(name)) };
}

function namesOf({ address, links }: Adapter): readonly string[] {
  return [address, ...links.map(({ ifname }) => ifname)];
}

function nameOf({ links, driver, classCode }: Adapter): string {
  const names = links.map(({ ifname }) => ifname).join(", ");
  return names || (driver ?? `class ${classCode.toString(16).padStart(6, "0")}`);
}

/** The first thing that keeps it from being used, in the order in which a person would mend them. */
function obstacleOf(adapter: Adapter): Pick<LeftOut, "why" | "todo"> | undefined {
  const { classCode, totalVfs, driver, links } = adapter;
  if (classCode >> 16 !== NETWORK_CLASS) return { why: "it is no network adapter" };
  if (totalVfs === undefined) {
    const todo = "if the card has SR-IOV, turn it on in the firmware of the card and of the machine";
    return { why: "it offers no virtual functions", todo };
  }
  if (totalVfs === 0) {
    const todo =
      driver === "mlx5_core" || driver === "mlx4_core"
        ? `mlxconfig -d ${adapter.address} set SRIOV_EN=1 NUM_OF_VFS=16, then restart the machine`
        : "turn SR-IOV on in the firmware of the card";
    return { why: "the card has SR-IOV, and its firmware allows no virtual function", todo };
  }
  if (driver === undefined) return { why: "it has no driver", todo: "load its kernel module (modprobe)" };
  if (driver === VFIO_DRIVER) {
    return { why: `it is bound to ${VFIO_DRIVER} as a whole: a program has it`, todo: "bind it to its kernel driver" };
  }
  if (links.length === 0) {
    const todo = "run this in the host's network namespace (hostNetwork: true)";
    return { why: `its driver ${driver} shows no network device here`, todo };
  }
  if (links.length > 1) return { why: `it has several network devices: ${nameOf(adapter)}` };
  if (vfDriverOf(adapter, driver)) return undefined;
  const todo = `find out which driver serves the virtual functions of ${driver}, and write the entry by hand`;
  return { why: `the driver of its virtual functions is not known (${driver} makes them)`, todo };
}

/** What serves them now is the best answer; a VF that a VFIO client has says nothing. */
function vfDriverOf({ vfs }: Adapter, pfDriver: string): Reasoned<string> | undefined {
  const seen = vfs.map(({ driver }) => driver).find((driver) => driver !== undefined && driver !== VFIO_DRIVER);
  if (seen !== undefined) return { value: seen, why: "its virtual functions are bound to it now" };
  const known = knownVfDriver(pfDriver);
  return known === undefined ? undefined : { value: known, why: `goes with ${pfDriver}` };
}

function chosenPf(adapter: Adapter, defaultRoutes: readonly string[], options: ChoiceOptions): ChosenPf {
  const { address, driver = "", links, vfs, totalVfs = 0 } = adapter;
  const [link] = links;
  // obstacleOf has seen to it that there is one.
  const vfKernelDriver = vfDriverOf(adapter, driver) ?? { value: driver, why: "" };
  return {
    address,
    says: [aboutLine(adapter), ...(link ? warningsOf(link, adapter, defaultRoutes) : [])],
    pfKernelDriver: { value: driver, why: "bound now" },
    vfKernelDriver,
    capabilities: capabilitiesOf(adapter, link),
    serviceDomains: domainsOf(options.serviceDomains),
    mostVfs: vfs.length === 0 ? totalVfs : undefined,
  };
}

function aboutLine({ vendorId, deviceId, links, numaNode, vfs, totalVfs }: Adapter): string {
  const [link] = links;
  const id = [vendorId, deviceId].map((part) => part.toString(16).padStart(4, "0")).join(":");
  const node = numaNode === undefined ? [] : [`NUMA node ${numaNode}`];
  return [link?.ifname, `[${id}]`, ...node, `${vfs.length} of ${totalVfs} virtual functions made`].join(", ");
}

function warningsOf(
  link: AdapterLink,
  { address, representorCount }: Adapter,
  defaultRoutes: readonly string[],
): string[] {
  const { ifname, isUp, master } = link;
  const isUplink = [ifname, master].some((name) => name !== undefined && defaultRoutes.includes(name));
  const switched = `It is in switchdev mode (${counted(representorCount, "representor")}), and its VFs are given to no client: devlink dev eswitch set pci/${address} mode legacy`;
  return [
    ...(isUp ? [] : [`Its link is down: ip link set ${ifname} up`]),
    ...(isUplink ? ["The node's own traffic leaves by it too: clients share its bandwidth"] : []),
    ...(master === undefined ? [] : [`It is a port of ${master}: clients bypass that`]),
    ...(representorCount > 0 ? [switched] : []),
  ];
}

function capabilitiesOf({ vendorId }: Adapter, link: AdapterLink | undefined): readonly Reasoned<string>[] {
  const vendor = { value: vendorCapability(vendorId), why: "its vendor" };
  if (link?.speedMbps === undefined) {
    return [{ ...vendor, why: "its vendor; there is no link to take a speed from: add it by hand, such as 10G" }];
  }
  return [vendor, { value: speedCapability(link.speedMbps), why: "the speed of its link now" }];
}

/** 10G, 2.5G, 100M. */
function speedCapability(mbps: number): string {
  return mbps >= 1000 ? `${mbps / 1000}G` : `${mbps}M`;
}

function domainsOf(named: readonly string[]): readonly Reasoned<string>[] {
  if (named.length > 0) return named.map((value) => ({ value, why: "as you said" }));
  return [{ value: PLACEHOLDER_DOMAIN, why: "CHANGE: a name for the network that its cable leads to" }];
}
