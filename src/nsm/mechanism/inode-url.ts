import { NsmError } from "../fault.ts";

/** A file that was, or will be, passed over the connection: named by its device and inode alone (nsm-protocol §6.4). */
export interface InodeUrl {
  /** As on the wire; compare two of them by this text. */
  readonly text: string;
  readonly dev: bigint;
  readonly ino: bigint;
}

/**
 * Reads `inode://<dev>/<ino>`. Nothing else names a file for us: a path that a peer sends ("file:…") would be opened
 * with our rights.
 * @throws {NsmError} bad-value.
 */
export function parseInodeUrl(text: string, what: string): InodeUrl {
  const match = /^inode:\/\/(\d{1,20})\/(\d{1,20})$/.exec(text);
  const [dev, ino] = [BigInt(match?.[1] ?? -1), BigInt(match?.[2] ?? -1)];
  if (!isUnsigned64(dev) || !isUnsigned64(ino)) {
    throw new NsmError({ kind: "bad-value", what, value: text, desired: "inode://<device>/<inode>" });
  }
  return { text, dev, ino };
}

/** True if the text claims to be an inode URL. */
export function isInodeUrl(text: string): boolean {
  return text.startsWith("inode://");
}

/** The URL that names a file we pass. */
export function formatInodeUrl(id: { readonly dev: bigint; readonly ino: bigint }): string {
  return `inode://${id.dev}/${id.ino}`;
}

function isUnsigned64(value: bigint): boolean {
  return value >= 0n && value < 1n << 64n;
}
