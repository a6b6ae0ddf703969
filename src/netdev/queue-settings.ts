// What only sysfs says of a link: which CPUs work for its queues. Read, never written: sysfs speaks of the namespace it was mounted in,
// and a driver that makes the device again begins with none of it. XPS is left out: drivers set it themselves when they come up.
import { type HostFiles, KernelError } from "../kernel/index.ts";

const OF_LINK = ["threaded", "gro_flush_timeout", "napi_defer_hard_irqs"];
const OF_RECEIVE_QUEUE = ["rps_cpus", "rps_flow_cnt"];
/** All are 0 to begin with; a mask of many CPUs is "00000000,00000000". */
const IS_ZERO = /^[0,]*$/;

/**
 * Those that are not 0, so that a link with fewer queues differs by what was set only. Empty where this sysfs has no such link.
 * @param classNet /sys/class/net
 */
export async function readQueueSettings(
  classNet: HostFiles,
  { index, name }: { readonly index: number; readonly name: string },
): Promise<Readonly<Record<string, string>>> {
  const read = (path: string) => orMissing(classNet.readText(`${name}/${path}`));
  if ((await read("ifindex")) !== String(index)) return {};
  const queues = (await orMissing(classNet.list(`${name}/queues`))) ?? [];
  const receiving = queues.filter((queue) => queue.startsWith("rx-"));
  const paths = [
    ...OF_LINK,
    ...receiving.flatMap((queue) => OF_RECEIVE_QUEUE.map((file) => `queues/${queue}/${file}`)),
  ];
  const texts = await Promise.all(paths.map(async (path) => [path, (await read(path)) ?? ""] as const));
  return Object.fromEntries(texts.filter(([, text]) => !IS_ZERO.test(text)));
}

/** A kernel, or a driver, that does not have it. */
async function orMissing<T>(reading: Promise<T>): Promise<T | undefined> {
  return await reading.catch((error: unknown) => {
    if (error instanceof KernelError) return undefined;
    throw error;
  });
}
