import { addressBytes, addressText } from "../network/ip-address.ts";

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

function parsePrefix(text: string): { base: bigint; bits: number; width: number } {
  const [address = "", length = ""] = text.split("/");
  const bytes = addressBytes(address);
  const width = bytes.length * 8;
  const bits = Number(length);
  if (!/^\d+$/.test(length) || bits > width)
    throw new SyntaxError(`Cannot parse prefix "${text}": want address/length`);
  const mask = ((1n << BigInt(bits)) - 1n) << BigInt(width - bits);
  return { base: BigInt(`0x${bytes.toString("hex")}`) & mask, bits, width };
}

function formatAddress(value: bigint, width: number): string {
  return addressText(Buffer.from(value.toString(16).padStart(width / 4, "0"), "hex"));
}
