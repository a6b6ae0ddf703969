/** The longest interval that Node takes: what it does is nothing. */
const IDLE_MS = 2_147_483_647;

/**
 * Keeps the event loop, and so the process, from ending until it is released. Timers of a `Clock`, sockets of the kernel and
 * the admin listener do not keep it: without this, a start that waits for one of them alone would end with Node's code 13.
 */
export function keepAlive(): () => void {
  const handle = setInterval(() => {}, IDLE_MS);
  return () => clearInterval(handle);
}
