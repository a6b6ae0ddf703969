// The Go original on the same node: it keeps no lock and knows of none, so it is awaited by the socket that it listens on.
import type { Clock } from "../async/index.ts";
import type { Host } from "../node/index.ts";
import type { Health, Log } from "../telemetry/index.ts";

interface OriginalOptions {
  readonly host: Pick<Host, "unixListeners">;
  readonly health: Health;
  readonly clock: Clock;
  readonly log: Log;
  /** Gives the waiting up. */
  readonly signal: AbortSignal;
}

/** os.MkdirTemp("", "sriov-forwarder") and the name in it (cmd-forwarder-sriov, main.go): seen from here, though its /tmp is not. */
const ITS_SOCKET = /\/sriov-forwarder\d+\/listen_on\.io\.sock$/;
/** No event reports that a unix socket of another process ends; a check is one read. */
const SCAN_MS = 1_000;

/**
 * Resolves when no original runs on this node: it would give out, move and rebind the virtual functions that we do.
 * @throws the signal's reason.
 */
export async function awaitOriginal({ host, health, clock, log, signal }: OriginalOptions): Promise<void> {
  const running = health.condition("original-running");
  let isWaited = false;
  for (;;) {
    const socket = host.unixListeners().find((path) => ITS_SOCKET.test(path));
    if (socket === undefined) break;
    if (!isWaited) log.warn("original-running", { socket });
    isWaited = true;
    running.raise(
      `The Go original of this forwarder runs on this node (it listens on ${socket}). Nothing is touched before it ends; then this one goes ` +
        "on by itself. Delete its DaemonSet, or keep it from this node",
    );
    await clock.sleep(SCAN_MS, signal);
  }
  running.clear();
  if (isWaited) log.info("original-gone", {});
}
