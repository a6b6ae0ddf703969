import { KernelError } from "./error.ts";
import { tryCall } from "./native.ts";

/** __NR_bpf, asm/unistd_64.h and asm-generic/unistd.h. */
const BPF_NUMBERS: Readonly<Record<string, number>> = { x64: 321, arm64: 280 };

/** Commands of bpf(2), enum bpf_cmd, include/uapi/linux/bpf.h. */
export const BpfCommand = {
  PROG_LOAD: 5,
  PROG_ATTACH: 8,
  PROG_DETACH: 9,
  PROG_GET_FD_BY_ID: 13,
  OBJ_GET_INFO_BY_FD: 15,
  PROG_QUERY: 16,
} as const;

/**
 * One bpf(2) call. `attributes` is the command's part of union bpf_attr; addresses in it are those of `offHeap` buffers, and
 * the kernel writes its answers into it. Answers a descriptor, or 0, as the command says.
 * @throws {KernelError} for example EPERM without CAP_BPF, EINVAL for a program that the verifier refuses.
 */
export function bpf(op: string, command: number, attributes: Buffer): number {
  const number = BPF_NUMBERS[process.arch];
  if (number === undefined) throw new Error(`Cannot ${op}: the number of bpf(2) on ${process.arch} is not known here`);
  const result = tryCall("syscall", number, command, attributes, attributes.length);
  if (result < 0) throw new KernelError(op, -result);
  return result;
}
