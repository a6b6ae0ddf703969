import { createHash } from "node:crypto";
import type { PciAddress } from "../pci/index.ts";

/** Clients take for a token id whatever has this beginning and 42 characters (sdk-sriov, pkg/tools/tokens). */
const TOKEN_PREFIX = "sriov-";
const TOKEN_CHARS = TOKEN_PREFIX.length + 36;

/**
 * The device id that represents one virtual function under one resource name: the same after every restart, and not to be
 * guessed by who does not know the namespace.
 * @param namespace a random UUID, made once per node and kept secret.
 */
export function tokenId(namespace: string, address: PciAddress, resource: string): string {
  return `${TOKEN_PREFIX}${uuidV5(namespace, `${address} ${resource}`)}`;
}

/** Whether a text has the form of a token id. Whether it was given out, the inventory knows. */
export function isTokenId(text: string): boolean {
  return text.length === TOKEN_CHARS && text.startsWith(TOKEN_PREFIX);
}

const SHORT_CHARS = TOKEN_PREFIX.length + 4;

/** The beginning of a token id: enough for an operator to distinguish two, and of no use to a pod. */
export function shortToken(id: string): string {
  return `${id.slice(0, SHORT_CHARS)}…`;
}

/** A text for the operator in which every token id is shortened. */
export function shortTokens(text: string): string {
  return text.replace(/sriov-[0-9a-f]{4}[0-9a-f-]+/gi, shortToken);
}

/** A name-based UUID (RFC 9562, section 5.5). */
function uuidV5(namespace: string, name: string): string {
  const space = Buffer.from(namespace.replaceAll("-", ""), "hex");
  if (space.length !== 16) throw new TypeError("Cannot make token ids: the namespace is no UUID");
  const hash = createHash("sha1").update(space).update(name).digest().subarray(0, 16);
  hash.writeUInt8((hash.readUInt8(6) & 0x0f) | 0x50, 6); // version 5
  hash.writeUInt8((hash.readUInt8(8) & 0x3f) | 0x80, 8); // the variant of RFC 9562
  return hash.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
