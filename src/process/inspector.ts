// The Node inspector on demand, before anything else runs: what dlv is to the original.
import type { ListenAddress } from "../config-values.ts";
import type { Log } from "../telemetry/index.ts";

/**
 * Waits for a debugger where one was requested. An early line says how to request one, in the words that engineers search for.
 * @throws {Error} where it cannot listen.
 */
export async function waitForDebugger(listenOn: ListenAddress | undefined, log: Log): Promise<void> {
  if (listenOn === undefined) {
    const hint =
      "Setting env variable DLV_LISTEN_FORWARDER to [host]:port makes this program wait there for a debugger";
    log.info("debugger-off", { hint });
    return;
  }
  const inspector = await import("node:inspector");
  const { host, port } = listenOn;
  inspector.open(port, host === "localhost" ? "127.0.0.1" : host);
  const url = inspector.url();
  if (url === undefined) throw new Error(`Cannot open the debugger on ${host} port ${port}: is the port taken?`);
  const warning = "who reaches this port can run any code here, as root of the node";
  log.warn("waiting-for-debugger", { url, attach: "chrome://inspect, or any editor's Node attach", warning });
  inspector.waitForDebugger();
  log.info("debugger-attached");
}
