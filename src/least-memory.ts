// How much memory the forwarder needs. Apart from budgets.ts, which loads what it reckons for: this is said before anything is loaded.

const MIB = 1024 * 1024;

/** With less, what peers may have at least does not fit beside what the program needs at rest. */
const LEAST_MIB = 96;

/**
 * Why so little memory is too little, and what to do; undefined where it is enough.
 * @param memoryBytes of the memory cgroup; 0 or undefined without one
 */
export function memoryShortage(memoryBytes: number | undefined): string | undefined {
  if (!memoryBytes || memoryBytes >= LEAST_MIB * MIB) return undefined;
  const has = Math.floor(memoryBytes / MIB);
  return (
    `The container has ${has} MiB of memory, and the forwarder needs ${LEAST_MIB}: the kernel may end it at any time, or it never gets as far ` +
    "as to serve; resources.limits.memory should be 256Mi"
  );
}
