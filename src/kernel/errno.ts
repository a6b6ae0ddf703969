import { constants } from "node:os";

/** The numbers of errors that code compares with; what Node does not name is from include/uapi/asm-generic/errno.h. */
export const Errno = { ...constants.errno, ETOOMANYREFS: 109 } as const;

const names = new Map(Object.entries(Errno).map(([name, number]) => [number, name]));
// It has two names on Linux; this is what the kernel's sources call it.
names.set(Errno.EAGAIN, "EAGAIN");

/** The name of an errno, for example "ENODEV"; "E<number>" when it has none here. */
export function errnoName(errno: number): string {
  return names.get(errno) ?? `E${errno}`;
}
