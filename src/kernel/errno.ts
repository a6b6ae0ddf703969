import { constants } from "node:os";

const names = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));

/** The numbers of the errors that code compares with, as on this machine (errno-base.h, errno.h). */
export const Errno = constants.errno;

/** The name of an errno, for example "ENODEV"; "E<number>" when Node does not know it. */
export function errnoName(errno: number): string {
  return names.get(errno) ?? `E${errno}`;
}
