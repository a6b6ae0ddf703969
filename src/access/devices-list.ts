// devices.list of cgroup version 1, Documentation/admin-guide/cgroup-v1/devices.rst and security/device_cgroup.c.
import type { DeviceNumber } from "../kernel/index.ts";

/** One line: `c 10:196 rwm`. */
export interface ListEntry {
  /** "a" is all, and then the numbers are "*". */
  readonly type: "a" | "b" | "c";
  readonly major: number | "*";
  readonly minor: number | "*";
  /** Letters of "rwm". */
  readonly access: string;
}

const LINE = /^([abc]) (\*|\d+):(\*|\d+) ([rwm]+)$/;

/** Lines of another form are left out: they cannot be of ours. */
export function parseDevicesList(text: string): readonly ListEntry[] {
  return text.split("\n").flatMap((line) => {
    const [, type, major = "", minor = "", access = ""] = LINE.exec(line) ?? [];
    if (type !== "a" && type !== "b" && type !== "c") return [];
    return [{ type, major: numberOf(major), minor: numberOf(minor), access }];
  });
}

function numberOf(text: string): number | "*" {
  return text === "*" ? "*" : Number(text);
}

/** Whether processes may open the character device for reading and writing: the kernel wants one entry that says it all. */
export function isAllowed(entries: readonly ListEntry[], { major, minor }: DeviceNumber): boolean {
  return entries.some(
    (entry) =>
      entry.type !== "b" &&
      (entry.major === "*" || entry.major === major) &&
      (entry.minor === "*" || entry.minor === minor) &&
      entry.access.includes("r") &&
      entry.access.includes("w"),
  );
}

/** What the entry for exactly this character device allows: letters of "rwm", "" when there is none. */
export function exactAccess(entries: readonly ListEntry[], { major, minor }: DeviceNumber): string {
  const exact = entries.filter((entry) => entry.type === "c" && entry.major === major && entry.minor === minor);
  return exact.map(({ access }) => access).join("");
}

/** The letters of "rw" that must be added for the device to be openable; "" when nothing is missing. */
export function missingAccess(entries: readonly ListEntry[], device: DeviceNumber): string {
  if (isAllowed(entries, device)) return "";
  const has = exactAccess(entries, device);
  return [..."rw"].filter((letter) => !has.includes(letter)).join("");
}
