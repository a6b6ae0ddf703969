import type { Mechanism } from "../../gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../../gen/networkservice_pb.ts";
import { NetdevError, parseInterfaceName } from "../../netdev/index.ts";
import { NsmError } from "../fault.ts";
import { type InodeUrl, parseInodeUrl } from "./inode-url.ts";

/** Keys of mechanism parameters: nsm-protocol §1.6. */
export const PARAMETER = {
  inodeUrl: "inodeURL",
  interfaceName: "name",
  tokenId: "tokenID",
  pciAddress: "pciAddress",
  vlan: "vlan",
  cgroupDir: "cgroupDir",
  iommuGroup: "iommuGroup",
  vfioMajor: "vfioMajor",
  vfioMinor: "vfioMinor",
  deviceMajor: "deviceMajor",
  deviceMinor: "deviceMinor",
} as const;

/** A VF as a network device in the client's namespace. */
export interface DesiredKernel {
  readonly type: "KERNEL";
  readonly tokenId: string;
  readonly interfaceName: string;
  readonly netns: InodeUrl;
  /** The client runs its own VLAN devices on the interface: leave addresses and routes alone (parameter `vlan`). */
  readonly bare: boolean;
}

/** A VF as a VFIO device of the client's pod. */
export interface DesiredVfio {
  readonly type: "VFIO";
  readonly tokenId: string;
  /** Where the client believes its cgroup to be. A hint to compare with, never a path to open. */
  readonly cgroupDir: string;
  /** Which VF the client says it was given before. A hint to choose by among those that it has, never more. */
  readonly pciAddress?: string;
}

/** Nothing on this node: the connection only passes through. */
export interface DesiredNoop {
  readonly type: "NOOP";
}

/** What one mechanism of a Request desires of this node, checked and in our own terms. */
export type DesiredMechanism = DesiredKernel | DesiredVfio | DesiredNoop;

/** One way to serve a Request: the mechanism as it was sent (our answer extends its parameters), and how to read it. */
export interface MechanismChoice {
  readonly mechanism: Mechanism;
  /** @throws {NsmError} bad-value. Read late, so that one bad preference leaves the others a chance. */
  read(): DesiredMechanism;
}

/**
 * The original's mechanisms: the ways to serve a Request, in the order to try them: the connection's own mechanism if it has
 * one, else its preferences of types that we know.
 * @throws {NsmError} unsupported-mechanism when the connection's own mechanism is of a type that we do not know.
 */
export function mechanismChoices(request: NetworkServiceRequest): readonly MechanismChoice[] {
  const own = request.connection?.mechanism;
  if (own && own.type !== "") {
    if (!isKnown(own)) throw new NsmError({ kind: "unsupported-mechanism" });
    return [choiceOf(own)];
  }
  return request.mechanismPreferences.filter(isKnown).map(choiceOf);
}

/** True if both desire the same of this node. */
export function isSameDesired(a: DesiredMechanism, b: DesiredMechanism): boolean {
  if (a.type === "KERNEL" && b.type === "KERNEL") {
    return (
      a.tokenId === b.tokenId &&
      a.interfaceName === b.interfaceName &&
      a.netns.text === b.netns.text &&
      a.bare === b.bare
    );
  }
  if (a.type === "VFIO" && b.type === "VFIO") return a.tokenId === b.tokenId && a.cgroupDir === b.cgroupDir;
  return a.type === b.type;
}

/** True if both are one claim to one VF: by one token, for a client at one place. */
export function isSamePlace(a: DesiredMechanism, b: DesiredMechanism): boolean {
  if (a.type === "KERNEL" && b.type === "KERNEL") return a.tokenId === b.tokenId && a.netns.text === b.netns.text;
  // Which pod a token is of kubelet says, and access opens no cgroup but that pod's.
  return a.type === "VFIO" && isSameDesired(a, b);
}

function choiceOf(mechanism: Mechanism): MechanismChoice {
  let desired: DesiredMechanism | undefined;
  const read = () => {
    desired ??= readMechanism(mechanism);
    return desired;
  };
  return { mechanism, read };
}

// The README of the original calls the KERNEL mechanism KERNEL_INTERFACE, and so do some old clients.
const KINDS: ReadonlyMap<string, DesiredMechanism["type"]> = new Map([
  ["KERNEL", "KERNEL"],
  ["KERNEL_INTERFACE", "KERNEL"],
  ["VFIO", "VFIO"],
  ["NOOP", "NOOP"],
]);

function isKnown(mechanism: Mechanism): boolean {
  return KINDS.has(mechanism.type);
}

function readMechanism(mechanism: Mechanism): DesiredMechanism {
  const parameters = new Map(Object.entries(mechanism.parameters));
  switch (KINDS.get(mechanism.type)) {
    case "KERNEL":
      return {
        type: "KERNEL",
        tokenId: readTokenId(parameters),
        interfaceName: readInterfaceName(parameters),
        netns: parseInodeUrl(parameters.get(PARAMETER.inodeUrl) ?? "", "the network namespace (inodeURL)"),
        bare: isVlanTag(parameters.get(PARAMETER.vlan)),
      };
    case "VFIO":
      return {
        type: "VFIO",
        tokenId: readTokenId(parameters),
        cgroupDir: parameters.get(PARAMETER.cgroupDir) ?? "",
        ...optional(parameters, PARAMETER.pciAddress),
      };
    case "NOOP":
      return { type: "NOOP" };
    default:
      throw new NsmError({ kind: "unsupported-mechanism" });
  }
}

function optional<K extends string>(parameters: ReadonlyMap<string, string>, key: K): { readonly [_ in K]?: string } {
  const value = parameters.get(key);
  return value === undefined ? {} : ({ [key]: value } as { readonly [_ in K]: string });
}

/** The form that every client accepts: "sriov-" and 36 characters more. Which token it is, the inventory knows. */
function readTokenId(parameters: ReadonlyMap<string, string>): string {
  const value = parameters.get(PARAMETER.tokenId) ?? "";
  if (!/^sriov-[0-9A-Za-z-]{36}$/.test(value)) {
    throw new NsmError({
      kind: "bad-value",
      what: "the device token (tokenID)",
      // A token is a claim to a VF: no part of a nearly right one belongs in an error that is logged on the way.
      value: value === "" ? "" : "(hidden)",
      desired: "an id that the device plugin gave to the pod: sriov- and 36 characters",
    });
  }
  return value;
}

/** Before anything is begun: the same rule holds when the interface is made. */
function readInterfaceName(parameters: ReadonlyMap<string, string>): string {
  const value = parameters.get(PARAMETER.interfaceName) ?? "";
  try {
    return parseInterfaceName(value);
  } catch (error) {
    if (!(error instanceof NetdevError)) throw error;
    const desired = "1 to 15 bytes without slash, colon, percent sign or blank, and neither ., .., all nor default";
    throw new NsmError({ kind: "bad-value", what: "the interface name (name)", value, desired });
  }
}

/** The original reads a value that does not parse as 0, which means "no VLAN". */
function isVlanTag(text: string | undefined): boolean {
  return text !== undefined && /^\d{1,4}$/.test(text) && Number(text) > 0 && Number(text) < 4096;
}
