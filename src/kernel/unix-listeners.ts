import { readFileSync } from "node:fs";
import { inNetns, type Netns } from "./netns.ts";

/** __SO_ACCEPTCON, include/uapi/linux/net.h: it has a listener. */
const ACCEPTS = 0x10000;

/**
 * The paths, as their makers named them, of the unix sockets of a network namespace that have a listener. The files may lie in
 * other mount namespaces.
 * @throws {KernelError} when the namespace cannot be entered.
 */
export function unixListeners(netns: Netns): readonly string[] {
  return parseUnixListeners(inNetns(netns, () => readFileSync("/proc/thread-self/net/unix", "utf8")));
}

/** Of /proc/net/unix (net/unix/af_unix.c, unix_seq_show): `Num RefCount Protocol Flags Type St Inode Path`. */
export function parseUnixListeners(text: string): readonly string[] {
  return text.split("\n").flatMap((line) => {
    const [, flags = "0", path] = /^\S+: \S+ \S+ ([0-9A-F]+) \S+ \S+ +\d+ (.+)$/.exec(line) ?? [];
    return path !== undefined && (Number.parseInt(flags, 16) & ACCEPTS) !== 0 ? [path] : [];
  });
}
