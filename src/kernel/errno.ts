import { constants } from "node:os";

/** The numbers of errors that code compares with; what Node does not name is from include/uapi/asm-generic/errno.h. */
export const Errno = { ...constants.errno, ETOOMANYREFS: 109 } as const;

const names: ReadonlyMap<number, string> = new Map([
  ...Object.entries(Errno).map(([name, number]) => [number, name] as const),
  // It has two names on Linux; this is what the kernel's sources call it.
  [Errno.EAGAIN, "EAGAIN"],
]);

/** The code of what the system refused, "ENOENT"; undefined for any other error. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

/** The name of an errno, for example "ENODEV"; "E<number>" when it has none here. */
export function errnoName(errno: number): string {
  return names.get(errno) ?? `E${errno}`;
}
