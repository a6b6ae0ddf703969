import { isIPv4, isIPv6 } from "node:net";

/** The 4 or 16 bytes of an address, as they travel. @throws {SyntaxError} when it is none. */
export function addressBytes(text: string): Buffer {
  if (isIPv4(text)) return Buffer.from(text.split(".").map(Number));
  if (!isIPv6(text)) throw new SyntaxError(`Cannot parse address "${text}"`);
  const [head = "", tail] = text.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail ? tail.split(":") : [];
  const zeros = tail === undefined ? [] : Array<string>(8 - left.length - right.length).fill("0");
  const groups = [...left, ...zeros, ...right].map((group) => group.padStart(4, "0"));
  return Buffer.from(groups.join(""), "hex");
}

/** The text of an address, written as the kernel writes it. */
export function addressText(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join(".");
  const groups = bytes.toString("hex").match(/.{4}/g) ?? [];
  // A URL writes its host in the canonical form of RFC 5952, with "::" for the longest run of zeros, as the kernel does.
  return new URL(`http://[${groups.join(":")}]`).hostname.slice(1, -1);
}
