import { type IpFamily, ipFromBytes, ipToBytes } from "../kernel/index.ts";

/** An address with the length of its network, "10.0.0.1/24"; the address is canonical text. */
export interface Prefix {
  readonly family: IpFamily;
  readonly address: string;
  readonly prefixLength: number;
}

/** Reads "address/length"; an address alone is a prefix of its full length. undefined when the text is neither. */
export function parsePrefix(text: string): Prefix | undefined {
  const slash = text.indexOf("/");
  const bytes = ipToBytes(slash < 0 ? text : text.slice(0, slash));
  if (!bytes) return undefined;
  const most = bytes.length * 8;
  const length = slash < 0 ? String(most) : text.slice(slash + 1);
  if (!/^(0|[1-9]\d{0,2})$/.test(length) || Number(length) > most) return undefined;
  return { family: bytes.length === 4 ? 4 : 6, address: ipFromBytes(bytes), prefixLength: Number(length) };
}

export function prefixText(prefix: Prefix): string {
  return `${prefix.address}/${prefix.prefixLength}`;
}

/** The same prefix with all bits behind its length zero. */
export function networkOf(prefix: Prefix): Prefix {
  return { ...prefix, address: ipFromBytes(masked(prefix.address, prefix.prefixLength)) };
}

/** Is the address inside the prefix? Families never mix. */
export function contains(prefix: Prefix, address: string): boolean {
  const bytes = ipToBytes(address);
  if (!bytes || bytes.length !== (prefix.family === 4 ? 4 : 16)) return false;
  const inside = masked(prefix.address, prefix.prefixLength);
  return masked(address, prefix.prefixLength).every((byte, i) => byte === inside[i]);
}

/** The last address of an IPv4 network, to which all its hosts listen; networks of one or two hosts have none (RFC 3021). */
export function broadcastOf(prefix: Prefix): string | undefined {
  if (prefix.family !== 4 || prefix.prefixLength > 30) return undefined;
  const bytes = masked(prefix.address, prefix.prefixLength);
  return ipFromBytes(bytes.map((byte, i) => byte | ~maskByte(i, prefix.prefixLength)));
}

function masked(address: string, prefixLength: number): Uint8Array {
  const bytes = ipToBytes(address) ?? new Uint8Array(0);
  return bytes.map((byte, i) => byte & maskByte(i, prefixLength));
}

function maskByte(i: number, prefixLength: number): number {
  const bits = Math.min(8, Math.max(0, prefixLength - i * 8));
  return (0xff << (8 - bits)) & 0xff;
}
