import { familyNumber, familyOf, type IpFamily, ipBytes } from "./address.ts";
import type { AttributeEncoder } from "./attribute.ts";
import { ipFromBytes } from "./ip.ts";
import { fibRuleHdr } from "./layout.ts";
import {
  decodeBody,
  encodeBody,
  type NetlinkMessage,
  type NetlinkRequest,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
} from "./message.ts";

const RTM_NEWRULE = 32;
const RTM_DELRULE = 33;
const RTM_GETRULE = 34;

// enum in include/uapi/linux/fib_rules.h
const FRA_SRC = 2;
const FRA_PRIORITY = 6;
const FRA_TABLE = 15;
const FRA_PROTOCOL = 21;
const FRA_IP_PROTO = 22;
const FRA_SPORT_RANGE = 23;
const FRA_DPORT_RANGE = 24;

const FR_ACT_TO_TBL = 1;

/** Both included. */
export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** A policy rule: which packets use which table. */
export interface Rule {
  readonly family: IpFamily;
  readonly from: { readonly address: string; readonly prefixLength: number } | undefined;
  /** IPPROTO_*: 6 TCP, 17 UDP. */
  readonly ipProtocol: number | undefined;
  readonly sourcePorts: PortRange | undefined;
  readonly destinationPorts: PortRange | undefined;
  /** 0 when it leads to no table. */
  readonly table: number;
  /** The lower, the earlier the kernel tries it. */
  readonly priority: number;
  /** Who set it, as RTPROT_* (Linux 4.17). */
  readonly protocol: number;
}

/** A rule to be set, or removed. */
export interface NewRule {
  readonly family: IpFamily;
  readonly from?: Rule["from"];
  readonly ipProtocol?: number | undefined;
  readonly sourcePorts?: PortRange | undefined;
  readonly destinationPorts?: PortRange | undefined;
  readonly table: number;
  /** Left out when adding: the kernel puts it before all rules but the first. Left out when deleting: any. */
  readonly priority?: number;
  readonly protocol?: number;
}

export function encodeRule(action: "add" | "delete", rule: NewRule): NetlinkRequest {
  const header = {
    family: familyNumber(rule.family),
    sourceLength: rule.from?.prefixLength ?? 0,
    table: rule.table < 256 ? rule.table : 0,
    action: FR_ACT_TO_TBL,
  };
  const body = encodeBody(fibRuleHdr, header, (encoder) => addRule(encoder, rule));
  return action === "add"
    ? { type: RTM_NEWRULE, flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, body }
    : { type: RTM_DELRULE, flags: NLM_F_ACK, body };
}

function addRule(encoder: AttributeEncoder, rule: NewRule): void {
  if (rule.from && rule.from.prefixLength > 0) encoder.bytes(FRA_SRC, ipBytes(rule.from.address));
  if (rule.ipProtocol !== undefined) encoder.u8(FRA_IP_PROTO, rule.ipProtocol);
  if (rule.destinationPorts) encoder.bytes(FRA_DPORT_RANGE, portBytes(rule.destinationPorts));
  if (rule.sourcePorts) encoder.bytes(FRA_SPORT_RANGE, portBytes(rule.sourcePorts));
  if (rule.table >= 256) encoder.u32(FRA_TABLE, rule.table);
  if (rule.priority !== undefined) encoder.u32(FRA_PRIORITY, rule.priority);
  if (rule.protocol !== undefined) encoder.u8(FRA_PROTOCOL, rule.protocol);
}

// struct fib_rule_port_range: u16 start, u16 end, in the byte order of the machine.
function portBytes(range: PortRange): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt16LE(range.first, 0);
  bytes.writeUInt16LE(range.last, 2);
  return bytes;
}

export function encodeDumpRules(family: IpFamily): NetlinkRequest {
  return { type: RTM_GETRULE, flags: NLM_F_DUMP, body: encodeBody(fibRuleHdr, { family: familyNumber(family) }) };
}

/** undefined for other families. @throws {RangeError} when the message is malformed. */
export function decodeRule(message: NetlinkMessage): Rule | undefined {
  const { header, attributes } = decodeBody(fibRuleHdr, message, "a rule");
  const family = familyOf(header.family);
  if (!family) return undefined;
  const source = attributes.bytes(FRA_SRC);
  const ports = (type: number) => {
    const bytes = attributes.bytes(type);
    return bytes?.length === 4 ? { first: bytes.readUInt16LE(0), last: bytes.readUInt16LE(2) } : undefined;
  };
  const rule: Rule = {
    family,
    from: source && { address: ipFromBytes(source), prefixLength: header.sourceLength },
    ipProtocol: attributes.u8(FRA_IP_PROTO),
    sourcePorts: ports(FRA_SPORT_RANGE),
    destinationPorts: ports(FRA_DPORT_RANGE),
    table: attributes.u32(FRA_TABLE) ?? header.table,
    priority: attributes.u32(FRA_PRIORITY) ?? 0,
    protocol: attributes.u8(FRA_PROTOCOL) ?? 0,
  };
  if (attributes.problem) throw new RangeError(`a rule: ${attributes.problem}`);
  return rule;
}
