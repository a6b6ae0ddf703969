import { isIPv4, isIPv6 } from "node:net";

/** Gives each client an address of one prefix; the first address is the endpoint's own, as icmp-responder has it. */
export interface Ipam {
  /** The endpoint's address as a host prefix: "172.16.1.0/32". */
  readonly own: string;
  /** The client's address as a host prefix, the same for the same key until it is released. @throws {RangeError} when all are given out. */
  lease(key: string): string;
  release(key: string): void;
  /** How many addresses are given out. */
  readonly leased: number;
}

/** Hands out the addresses of `prefix` ("172.16.1.0/24", "2001:db8::/120"). @throws {SyntaxError} on anything else. */
export function createIpam(prefix: string): Ipam {
  const { base, bits, width } = parsePrefix(prefix);
  const size = 1n << BigInt(width - bits);
  const leases = new Map<string, bigint>();
  const hostPrefix = (offset: bigint) => `${formatAddress(base + offset, width)}/${width}`;
  return {
    own: hostPrefix(0n),
    lease(key) {
      const known = leases.get(key);
      if (known !== undefined) return hostPrefix(known);
      const taken = new Set(leases.values());
      for (let offset = 1n; offset < size; offset++) {
        if (taken.has(offset)) continue;
        leases.set(key, offset);
        return hostPrefix(offset);
      }
      throw new RangeError(`Cannot lease an address of ${prefix}: all ${leases.size} are given out`);
    },
    release: (key) => void leases.delete(key),
    get leased() {
      return leases.size;
    },
  };
}

function parsePrefix(text: string): { base: bigint; bits: number; width: 32 | 128 } {
  const [address = "", length = ""] = text.split("/");
  const width = isIPv4(address) ? 32 : 128;
  const bits = Number(length);
  if (!(isIPv4(address) || isIPv6(address)) || !/^\d+$/.test(length) || bits > width) {
    throw new SyntaxError(`Cannot parse prefix "${text}": want address/length`);
  }
  const mask = ((1n << BigInt(bits)) - 1n) << BigInt(width - bits);
  return { base: parseAddress(address) & mask, bits, width };
}

function parseAddress(text: string): bigint {
  if (isIPv4(text)) return text.split(".").reduce((sum, part) => (sum << 8n) | BigInt(part), 0n);
  const [head = "", tail] = text.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail ? tail.split(":") : [];
  const zeros = tail === undefined ? [] : Array<string>(8 - left.length - right.length).fill("0");
  return [...left, ...zeros, ...right].reduce((sum, part) => (sum << 16n) | BigInt(`0x${part}`), 0n);
}

function formatAddress(value: bigint, width: 32 | 128): string {
  if (width === 32) return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 0xffn).join(".");
  const groups = [112n, 96n, 80n, 64n, 48n, 32n, 16n, 0n].map((shift) => ((value >> shift) & 0xffffn).toString(16));
  // A URL writes its host in the canonical form of RFC 5952, with "::" for the longest run of zeros, as the kernel does.
  return new URL(`http://[${groups.join(":")}]`).hostname.slice(1, -1);
}
