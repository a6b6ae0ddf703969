/**
 * Threads of libuv's pool, on which files are read and netlink waits for the kernel's one lock for links: of its usual four
 * none is left for the journal when some links move. docs/bench.md has the figures.
 */
export const POOL_THREADS = 32;
