import { printable } from "../async/index.ts";

/** What of a request cannot be read as meant. */
export type RequestPart =
  | "interface name"
  | "MTU"
  | "MAC address"
  | "VLAN"
  | "address"
  | "peer address"
  | "route"
  | "next hop"
  | "rule"
  | "port range"
  | "protocol"
  | "neighbour";

/** What was wrong, to decide by; the message is for the operator. */
export type NetdevFault =
  /** The request makes no sense; never retry. */
  | { readonly kind: "invalid"; readonly part: RequestPart; readonly text: string; readonly problem: string }
  /** Another link of the namespace has the name. */
  | { readonly kind: "name-taken"; readonly name: string; readonly by: string }
  /** The link is not where it should be: unbound, or moved by another process. */
  | { readonly kind: "gone"; readonly link: string; readonly where: string }
  /** The link under the index that sysfs gave for a VF is not the VF's; nothing was written to it. */
  | {
      readonly kind: "not-its-link";
      readonly vf: string;
      readonly link: string;
      readonly ifindex: number;
      /** What the link sits on: "PCI function 0000:3b:02.1", "no device (it is a veth)". */
      readonly owner: string;
    }
  /** What was given as the client's namespace is none. */
  | { readonly kind: "not-a-namespace"; readonly problem: string }
  /** The namespace given is the host's own. */
  | { readonly kind: "host-namespace" }
  | {
      readonly kind: "mtu-out-of-range";
      readonly link: string;
      readonly mtu: number;
      readonly min: number;
      readonly max: number;
    }
  | { readonly kind: "no-free-table"; readonly limit: number }
  /** A process in the namespace has put our mark on more entries than we ever make. */
  | { readonly kind: "crowded"; readonly link: string; readonly limit: number }
  /** A pod has made more of it than can be removed while a Close waits. */
  | {
      readonly kind: "not-cleared";
      readonly link: string;
      readonly what: string;
      readonly left: number;
      readonly limitMs: number;
    }
  | { readonly kind: "neighbour-taken"; readonly address: string; readonly mac: string }
  | { readonly kind: "address-duplicate"; readonly link: string; readonly address: string }
  | { readonly kind: "address-tentative"; readonly link: string; readonly address: string; readonly afterMs: number }
  /** Changes were made, and are due again: another process undoes them. */
  | { readonly kind: "unsettled"; readonly link: string; readonly changes: readonly string[] }
  /** An attach failed, and so did its undoing: the VF is not clean. The cause says what failed first. */
  | { readonly kind: "left-behind"; readonly link: string; readonly reason: string; readonly left: readonly string[] }
  | { readonly kind: "mac-not-taken"; readonly ifindex: number; readonly mac: string; readonly problem: string }
  /** A driver said "not now" until the time was up; the same may succeed later. */
  | {
      readonly kind: "busy";
      readonly link: string;
      readonly step: string;
      readonly answer: string;
      readonly tries: number;
      readonly afterMs: number;
    }
  /** The PF reports nothing of its VFs, so that nothing can be requested of it. */
  | { readonly kind: "vf-silent"; readonly setting: string; readonly vf: number; readonly pf: string }
  /** The PF or its driver did not take a setting of the VF. */
  | {
      readonly kind: "vf-setting";
      readonly setting: string;
      readonly vf: number;
      readonly problem: string;
      readonly unsupported: boolean;
    };

/** A network device could not be made as requested, or could not be restored. */
export class NetdevError extends Error {
  override readonly name = "NetdevError";
  readonly fault: NetdevFault;

  constructor(fault: NetdevFault, options?: ErrorOptions) {
    super(describe(fault), options);
    this.fault = fault;
  }
}

function describe(fault: NetdevFault): string {
  switch (fault.kind) {
    case "invalid":
      return `Cannot take "${printable(fault.text)}" as ${fault.part}: ${fault.problem}`;
    case "name-taken":
      return `Cannot name the interface "${fault.name}": ${fault.by} of the client's namespace has that name; ask for another`;
    case "gone":
      return `Cannot find link ${fault.link} in ${fault.where}: it was unbound, removed or moved away`;
    case "not-its-link":
      return `Cannot use link ${fault.link} (index ${fault.ifindex}) as the network device of ${fault.vf}: the kernel says that it sits on ${fault.owner}; nothing was written to it; see whether /sys is of this process's network namespace: forwarder check`;
    case "not-a-namespace":
      return fault.problem;
    case "host-namespace":
      return "Cannot attach a link to the host's own network namespace: a client must send the descriptor of its own";
    case "mtu-out-of-range":
      return `Cannot set MTU ${fault.mtu} on link ${fault.link}: its driver takes ${fault.min} to ${fault.max}`;
    case "no-free-table":
      return `Cannot find a free routing table for a policy rule: the first ${fault.limit} are all in use`;
    case "crowded":
      return `Cannot read what is around link ${fault.link}: its namespace has more than ${fault.limit} addresses, or routes and rules that are marked as ours or lead to the same places; remove them there`;
    case "not-cleared":
      return `Cannot remove all ${fault.what} around link ${fault.link} within ${fault.limitMs} ms: ${fault.left} are left in the client's namespace; they end with the network device, which the VF's driver makes again`;
    case "neighbour-taken":
      return `Cannot set neighbour ${fault.address}: another process has set it permanently to ${fault.mac}`;
    case "address-duplicate":
      return `Cannot use address ${fault.address} on link ${fault.link}: another host of the network has it`;
    case "address-tentative":
      return `Cannot use address ${fault.address} on link ${fault.link}: still tentative after ${fault.afterMs} ms`;
    case "unsettled":
      return `Cannot settle link ${fault.link}: another process keeps undoing ${fault.changes.slice(0, 5).join("; ")}`;
    case "left-behind":
      return `Cannot attach link ${fault.link}: ${fault.reason}; and cannot restore its ${fault.left.join(", ")}`;
    case "mac-not-taken":
      return `Cannot set address ${fault.mac} of link ${fault.ifindex}: ${fault.problem}; binding its driver again may help`;
    case "busy": {
      const { link, step, answer, tries, afterMs } = fault;
      return `Cannot ${step} (link ${link}): its driver answered ${answer} ${tries} times within ${afterMs} ms; try again, and look in the kernel's log whether it hangs in a reset and whether its PF is up`;
    }
    case "vf-silent":
      return `Cannot set ${fault.setting} of VF ${fault.vf}: PF ${fault.pf} reports nothing of its VFs, so that it could not be seen whether it took it; have the endpoint and the configuration ask for none, or take a PF of another card`;
    case "vf-setting":
      return `Cannot set ${fault.setting} of VF ${fault.vf}: ${fault.problem}`;
  }
}
