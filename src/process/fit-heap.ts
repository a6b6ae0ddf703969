// V8's limit of the heap by the memory of the process's cgroup: docs/decisions/005.
import { getHeapStatistics } from "node:v8";

const MIB = 1024 * 1024;

/** What is never the heap's. The program's own pages are not in it: the kernel may take them back. */
const REST_BYTES = 16 * MIB;
/** Of what is left. Beside long-lived objects there are sockets, states of TLS, and buffers in arrival. */
const OLD_SPACE_PART = 0.6;
/** Below this the program does not start. */
const SMALLEST_MIB = 32;

/** What V8 has when it starts, and what the process may take. */
interface Memory {
  readonly heapLimitBytes: number;
  /** Of its memory cgroup; 0, or more than any machine has, without one. */
  readonly memoryBytes: number;
}

/** The limit of the old space in MiB that fits, where the one that V8 has is larger. */
export function fittingOldSpace({ heapLimitBytes, memoryBytes }: Memory): number | undefined {
  if (memoryBytes <= 0) return undefined;
  const fitting = Math.max(SMALLEST_MIB, Math.floor(((memoryBytes - REST_BYTES) * OLD_SPACE_PART) / MIB));
  return fitting * MIB < heapLimitBytes ? fitting : undefined;
}

/**
 * Starts the program again in the same process, with a heap that fits, where it has more than its cgroup. V8 makes the heap before the
 * first line runs and takes no other limit later; the flags of that line know no cgroup. Does nothing the second time. The same file
 * has just been executed: were it refused now, Node would abort, with exit code 134.
 */
export function fitHeap(environment: NodeJS.ProcessEnv): void {
  const { heap_size_limit: heapLimitBytes } = getHeapStatistics();
  const oldSpaceMib = fittingOldSpace({ heapLimitBytes, memoryBytes: process.constrainedMemory() });
  if (oldSpaceMib === undefined) return;
  const flag = `--max-old-space-size=${oldSpaceMib}`;
  // The heap's limit is that of the old space and of what is young.
  if (process.execArgv.includes(flag)) return;
  process.execve?.(
    process.execPath,
    [process.execPath, ...process.execArgv, flag, ...process.argv.slice(1)],
    environment,
  );
}
