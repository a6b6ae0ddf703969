import { getSystemErrorMessage } from "node:util";
import { errnoName } from "./errno.ts";

/** The kernel refused something. `code` decides ("ENODEV"), never the text. */
export class KernelError extends Error {
  override readonly name = "KernelError";
  /** What was being done, and to what: "bind /run/x.sock". */
  readonly op: string;
  /** The positive errno. */
  readonly errno: number;
  /** The errno's name: "ENODEV". */
  readonly code: string;
  /** What the kernel said about it in words, where it did (netlink extended acknowledgement). */
  readonly detail: string | undefined;

  constructor(op: string, errno: number, detail?: string) {
    const code = errnoName(errno);
    const todo = code === "EMFILE" ? "; raise this process's limit of open files (LimitNOFILE, ulimit -n)" : "";
    super(`Cannot ${op}: ${detail ?? describe(errno)} (${code})${todo}`);
    this.op = op;
    this.errno = errno;
    this.code = code;
    this.detail = detail;
  }
}

/** What the system refused Node, as ours; any other error as it is. */
export function kernelErrorOf(op: string, error: unknown): unknown {
  const errno = error instanceof Error && "errno" in error ? error.errno : undefined;
  return error instanceof KernelError || typeof errno !== "number" ? error : new KernelError(op, Math.abs(errno));
}

function describe(errno: number): string {
  try {
    return getSystemErrorMessage(-errno);
  } catch {
    return "unknown error";
  }
}
