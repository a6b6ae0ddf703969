// The composition root: builds the rooms bottom up, starts them in named phases, stops them in reverse.
import { type Clock, UndoStack } from "./async/index.ts";
import { openNodeJournal, type VfJournal } from "./connection-journal.ts";
import { VfHolds } from "./held-vf.ts";
import type { Host } from "./host.ts";
import { startIdentity } from "./identity/index.ts";
import { kernelVfSource } from "./kernel-vf-source.ts";
import { type KubeletSettings, offerToKubelet } from "./kubelet-offer.ts";
import { watchLateFunctions } from "./late-functions.ts";
import { type Node, openNode } from "./node.ts";
import { declareNodeMetrics } from "./node-metrics.ts";
import { type PfConfigFile, watchNode } from "./node-watch.ts";
import { kernelDriver, type MechanismDrivers, noopDriver } from "./nsm/index.ts";
import { type NsmServer, type NsmSettings, serveNsm } from "./nsm-server.ts";
import { type Recovered, recover } from "./recover.ts";
import { watchReturns } from "./returns.ts";
import type { PfConfig } from "./sriov/index.ts";
import { nodeStatus } from "./status-source.ts";
import { type Condition, createMetrics, Health, type Log, type Metrics, serveAdmin } from "./telemetry/index.ts";

/** What the environment says; names and units as in config.ts. */
export interface ForwarderSettings extends NsmSettings, KubeletSettings {
  readonly spiffeEndpointSocket: string;
  readonly adminListenOn: { readonly host: string; readonly port: number } | undefined;
}

export interface ForwarderOptions {
  readonly settings: ForwarderSettings;
  readonly pfConfig: PfConfig;
  /** Where another list may come from while we run. */
  readonly pfConfigFile?: PfConfigFile;
  readonly host: Host;
  /** Where rooms declare theirs; one of its own unless told. */
  readonly metrics?: Metrics;
  readonly clock: Clock;
  readonly log: Log;
  /** Aborted when a stop is asked for while the start still waits for its peers. */
  readonly signal: AbortSignal;
}

/** The running forwarder. */
export interface Forwarder {
  /** Where it serves NSM, `unix:///…`. */
  readonly url: string;
  /** The status page, `http://…`; undefined when it is off. */
  readonly adminUrl: string | undefined;
  readonly node: Node;
  readonly nsm: NsmServer;
  readonly health: Health;
  /** Unregisters and stops serving. Connections stay as they are: clients keep their traffic. */
  stop(): Promise<void>;
}

/**
 * Starts everything; resolves when the manager knows us and kubelet is being told.
 * @throws when a phase cannot be done; what was started is stopped by then.
 */
export async function startForwarder(options: ForwarderOptions): Promise<Forwarder> {
  const undo = new UndoStack();
  const stop = () =>
    undo.unwind((part, error) => options.log.error("part-not-stopped", { part, error: String(error) }));
  try {
    return { ...(await start(options, undo)), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function start(options: ForwarderOptions, undo: UndoStack): Promise<Omit<Forwarder, "stop">> {
  const { settings, pfConfig, host, clock, log, signal, metrics = createMetrics() } = options;
  const { statePath } = settings;
  const health = new Health(clock);
  const spec = { code: "not-serving", severity: "blocking", dependsOn: ["svid-missing", "not-registered"] } as const;
  const notServing = health.declare(spec);
  const phase = phases(clock, log, notServing);

  phase("look at the node");
  const node = await openNode({ pfConfig, host, statePath, health, clock, log });
  declareNodeMetrics(metrics, node.inventory);
  const admin = await startAdmin(options, { health, node, metrics }, undo);

  phase("read the journal");
  const journal = await openNodeJournal({ statePath, health, clock, log });
  undo.push("journal", () => journal.close());
  const recovered = await recover({ ...node, journal, clock, log });

  phase("retrieve the SVID (if nothing follows: look at the SPIRE agent)");
  const identity = startIdentity({ endpointSocket: settings.spiffeEndpointSocket, clock, log, health });
  undo.push("identity", () => identity.close());
  log.info("svid", { id: (await identity.ready(signal)).id });

  phase("serve NSM");
  const parts = { settings, identity, journal, left: recovered.connections, metrics, health, clock, log };
  const drivers = mechanisms(options, node, { journal, unmet: recovered.unmet });
  const nsm = await serveNsm({ ...parts, mechanisms: drivers }, undo);
  const { adopt, endConnection } = nsm;
  undo.push("returns", watchReturns({ ...node, left: recovered, uevents: host.uevents, endConnection, log }));
  undo.push("late functions", watchLateFunctions({ ...node, left: recovered, adopt, log }));

  phase("register with the manager");
  await nsm.register(signal);

  phase("offer the virtual functions to kubelet");
  const watched = { node, host, pfConfigFile: options.pfConfigFile, health, clock, log };
  undo.push("watch of the node", await watchNode(watched));
  const { inventory } = node;
  await offerToKubelet({ settings, inventory, endConnection, health, clock, log }, undo);

  phase("started");
  notServing.clear();
  undo.push("readiness", () => notServing.raise("Stopping; connections stay up"));
  return { url: nsm.url, adminUrl: admin, node, nsm, health };
}

/** Tells each phase with the time since the start, so that a start that hangs says where; not ready as long as it lasts. */
function phases(clock: Clock, log: Log, notServing: Condition): (title: string) => void {
  const startedMs = clock.monotonicMs();
  let number = 0;
  return (title) => {
    number += 1;
    notServing.raise(`Starting: ${title}`);
    log.info("phase", { number, title, sinceStartMs: Math.round(clock.monotonicMs() - startedMs) });
  };
}

function mechanisms(
  { host, clock, log }: ForwarderOptions,
  node: Node,
  kept: Pick<Recovered, "unmet"> & { readonly journal: VfJournal },
): MechanismDrivers {
  const parts = { ...node, ...kept, clock, log };
  const holds = new VfHolds(parts);
  return {
    KERNEL: kernelDriver(kernelVfSource({ ...parts, holds, host: host.netns })),
    NOOP: noopDriver,
  };
}

async function startAdmin(
  { settings, clock, log }: ForwarderOptions,
  { health, node, metrics }: { readonly health: Health; readonly node: Node; readonly metrics: Metrics },
  undo: UndoStack,
): Promise<string | undefined> {
  const { adminListenOn: listenOn, name: title } = settings;
  if (!listenOn) return undefined;
  try {
    const status = nodeStatus(title, node.inventory);
    const admin = await serveAdmin({ listenOn, title, health, metrics, status, clock, log });
    undo.push("status page", () => admin.close());
    log.info("status-page", { url: admin.url });
    return admin.url;
  } catch (error) {
    // Clients are served all the same.
    log.error("status-page-off", { error: error instanceof Error ? error.message : String(error) });
    return undefined;
  }
}
