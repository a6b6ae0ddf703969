// The composition root: builds the modules bottom up, starts them in named phases, stops them in reverse.

import { type Clock, messageOf, UndoStack } from "./async/index.ts";
import { type Budgets, budgetsFor } from "./budgets.ts";
import { openAdmin } from "./composition/admin-doors.ts";
import { reportEscapedErrors } from "./composition/escaped-errors.ts";
import { type KubeletSettings, type KubeletSide, openKubelet } from "./composition/kubelet-offer.ts";
import { openIdentity } from "./composition/last-spiffe-id.ts";
import {
  declareBinds,
  declareHealthMetrics,
  declareIdentityMetrics,
  declareMoves,
  declareNodeMetrics,
} from "./composition/node-metrics.ts";
import { ShownNode } from "./composition/node-view.ts";
import { type NsmServer, type NsmSettings, serveNsm } from "./composition/nsm-server.ts";
import { awaitOriginal } from "./composition/original-forwarder.ts";
import { startPhases } from "./composition/phase-report.ts";
import { ServiceToCome } from "./composition/service-to-come.ts";
import { ownStateFolder } from "./composition/state-owner.ts";
import type { SpiffeIdPattern } from "./identity/index.ts";
import { openStateFolder } from "./kernel/index.ts";
import { openCheckpoint } from "./kubelet/index.ts";
import { AdoptedGrants, endWithPods, mechanisms, openAccess, openNodeJournal } from "./mechanisms/index.ts";
import { HostLinks } from "./netdev/index.ts";
import { type Host, type Node, openNode, type PfConfigFile, watchNode } from "./node/index.ts";
import type { PfConfig } from "./pci/index.ts";
import { Reconciler } from "./reconcile/index.ts";
import type { Transport } from "./rpc/index.ts";
import { createMetrics, Health, type Log, type Metrics, noTracer, type Tracer } from "./telemetry/index.ts";

/** What the environment says; names and units as in config.ts. */
export interface ForwarderSettings extends NsmSettings, KubeletSettings {
  readonly spiffeEndpointSocket: string;
  /** Who we want to be; undefined: whom the agent makes of us. */
  readonly spiffeIds?: readonly SpiffeIdPattern[] | undefined;
  /** Between two observations of the node that no event has caused. */
  readonly reconcileIntervalMs: number;
  readonly adminListenOn: { readonly host: string; readonly port: number } | undefined;
}

export interface ForwarderOptions {
  readonly settings: ForwarderSettings;
  readonly pfConfig: PfConfig;
  /** Where another list may come from while we run. */
  readonly pfConfigFile?: PfConfigFile;
  readonly host: Host;
  /** How calls travel, to us and from us; sockets by default. */
  readonly transport?: Transport;
  /** What peers may have of this process; without limits of memory and descriptors by default. */
  readonly budgets?: Budgets;
  /** Where modules declare theirs; one of its own by default. */
  readonly metrics?: Metrics;
  /** Follows Requests and Closes; none by default. */
  readonly tracer?: Tracer;
  readonly clock: Clock;
  readonly log: Log;
  /** Aborted when a stop is requested while the start still waits for its peers. */
  readonly signal: AbortSignal;
  /** Takes what has been started and must be stopped; one of its own by default. Who hands it down sees what a start waits for that is given up. */
  readonly started?: UndoStack;
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
  /** The part that a stop waits for now. */
  readonly stopping: string | undefined;
}

/**
 * Starts everything; resolves when kubelet has our lists and the manager knows us.
 * @throws when a phase cannot be done; what was started is stopped by then.
 */
export async function startForwarder(options: ForwarderOptions): Promise<Forwarder> {
  const { started: undo = new UndoStack() } = options;
  const stop = () =>
    undo.unwind((part, error) => options.log.error("part-not-stopped", { part, error: String(error) }));
  try {
    const { settings, clock, log } = options;
    const health = new Health(clock);
    const shown = new ShownNode({ name: settings.name, health, clock, log });
    const { budgets = budgetsFor({}) } = options;
    health.condition("memory-too-little", budgets.shortage);
    const running = await start({ ...options, budgets, log: shown.log }, { health, shown, undo });
    return {
      ...running,
      stop,
      get stopping() {
        return undo.current;
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

type BoundedOptions = ForwarderOptions & Required<Pick<ForwarderOptions, "budgets">>;

interface Frame {
  readonly health: Health;
  readonly shown: ShownNode;
  readonly undo: UndoStack;
}

async function start(options: BoundedOptions, frame: Frame): Promise<Omit<Forwarder, "stop" | "stopping">> {
  const { settings, pfConfig, host, clock, log, signal, metrics = createMetrics(), tracer = noTracer } = options;
  const { health, shown, undo } = frame;
  undo.push("report of escaped errors", reportEscapedErrors(metrics, clock, log));
  declareHealthMetrics(metrics, health);
  const { phases, notServing } = namePhases(options, frame);

  phases.begin("take the state folder");
  const admin = await takeStateFolder(options, metrics, frame);

  phases.begin("look at the node");
  const state = await openStateFolder(settings.statePath, host);
  const node = await openNode({ pfConfig, host, state, health, ...declareBinds(metrics), clock, log, signal });
  undo.push("observation of the node", () => node.close());
  declareNodeMetrics(metrics, node);
  shown.show(node);

  phases.begin("read the journal");
  const journal = await openNodeJournal({ state, quota: options.budgets.quota, health, clock, log });
  undo.push("journal", () => journal.close());
  const access = openAccess(host, { metrics, clock, log }, undo);
  const pods = openCheckpoint(host.openFolder, settings.devicePluginPath, log);
  const kept = { node, journal, access, grants: new AdoptedGrants(), pods, links: new HostLinks(host, clock) };
  const { reconcileIntervalMs: intervalMs, spiffeEndpointSocket: endpointSocket, spiffeIds } = settings;
  const outside = { transport: options.transport, random: host.random, health, clock, log };
  const service = new ServiceToCome();
  const { endConnection } = service;
  const kubelet = openKubelet({ ...outside, settings, inventory: node.inventory, pods, host, endConnection }, undo);
  const { resourceOf } = kubelet;
  const reconciler = new Reconciler({ ...kept, resourceOf, uevents: host.uevents, intervalMs, metrics, clock, log });
  const left = await reconciler.start();
  undo.push("ends of pods", endWithPods(access, endConnection, log));
  await followNode(options, { node, service, reconciler, health }, undo);

  phases.begin("offer the virtual functions to kubelet");
  const offered = offer(options, { kubelet, shown, undo });

  phases.begin("retrieve the SVID (if nothing follows: look at the SPIRE agent)");
  const identity = await openIdentity(state, { ...outside, endpointSocket, spiffeIds }, undo);
  shown.learn({ identity });
  declareIdentityMetrics(metrics, identity);
  log.info("svid", { id: (await identity.ready(signal)).id });

  phases.begin("serve NSM");
  const moves = declareMoves(metrics);
  const drivers = mechanisms({ ...node, ...moves, ...kept, clock, log });
  const known = { settings, budgets: options.budgets, identity, journal, left, metrics, tracer };
  const nsm = await serveNsm({ ...outside, ...known, mechanisms: drivers }, undo);
  service.serve(nsm);
  undo.push("ends of connections", () => service.close());
  shown.learn({ nsm });

  phases.begin("register with the manager");
  await Promise.all([nsm.register(signal), offered]);

  phases.completed();
  undo.push("readiness", () => notServing.raise("Stopping; connections stay up"));
  return { url: nsm.url, adminUrl: admin, node, nsm, health };
}

/** Pods get their devices while other peers are away; and a kubelet that is keeps us from none of the others. */
function offer(
  { log }: ForwarderOptions,
  { kubelet, shown, undo }: Pick<Frame, "shown" | "undo"> & { readonly kubelet: KubeletSide },
): Promise<void> {
  const offered = kubelet.offer().then((said) => {
    said.onChange(() => shown.changed());
    shown.learn({ podOf: said.podOf });
  });
  // The start fails with it in the end; until then other parts may be waited for.
  offered.catch((error: unknown) => log.error("not-offered-to-kubelet", { error: messageOf(error) }));
  undo.push("offer to kubelet", () => offered.catch(() => {})); // what it starts is stopped next
  return offered;
}

/** From here on what is known of the node stays true, and what the previous instance left is settled as soon as it can be. */
async function followNode(
  { host, pfConfigFile, clock, log }: ForwarderOptions,
  parts: {
    readonly node: Node;
    readonly service: ServiceToCome;
    readonly reconciler: Reconciler;
    readonly health: Health;
  },
  undo: UndoStack,
): Promise<void> {
  const { node, service, reconciler, health } = parts;
  const { adopt, endConnection } = service;
  let rescan = () => {}; // The watch begins with a scan.
  undo.push("reconciler", reconciler.follow({ adopt, endConnection, rescan: () => rescan() }));
  const watch = await watchNode({ node, host, pfConfigFile, health, clock, log });
  undo.push("watch of the node", () => watch.close());
  rescan = () => watch.rescan();
}

function namePhases({ clock, log }: ForwarderOptions, { health, undo }: Frame) {
  const notServing = health.condition("not-serving");
  const phases = startPhases({ health, notServing, clock, log });
  undo.push("phases of the start", () => phases.end());
  return { phases, notServing };
}

/** The node is this process's from here on. Answers where the status page is. */
async function takeStateFolder(options: ForwarderOptions, metrics: Metrics, frame: Frame): Promise<string | undefined> {
  const { settings, host, clock, log, signal } = options;
  const { health, undo } = frame;
  const admin = await startAdmin(options, metrics, frame);
  const { statePath, name } = settings;
  await ownStateFolder({ statePath, name, host, health, clock, log, signal }, undo);
  await awaitOriginal({ host, health, clock, log, signal });
  // On the host's network the one that had the folder had the port, too.
  return admin ?? (await startAdminLate(options, metrics, frame));
}

/** The port of a process that has just been killed is free some instants after its locks are. */
const LATE_TRIES = 20;
const LATE_PAUSE_MS = 100;

async function startAdminLate(...parts: Parameters<typeof startAdmin>): Promise<string | undefined> {
  const [{ settings, clock, signal }] = parts;
  for (let tries = 1; tries <= LATE_TRIES && settings.adminListenOn; tries++) {
    const url = await startAdmin(...parts);
    if (url !== undefined) return url;
    await clock.sleep(LATE_PAUSE_MS, signal);
  }
  return undefined;
}

async function startAdmin(
  { settings, clock, log }: ForwarderOptions,
  metrics: Metrics,
  { health, shown, undo }: Frame,
): Promise<string | undefined> {
  const { adminListenOn: listenOn } = settings;
  if (!listenOn) return undefined;
  try {
    const identity = () => shown.identity;
    const admin = await openAdmin({ listenOn, source: shown, identity, health, metrics, clock, log }, undo);
    log.info("status-page", { url: admin.url });
    return admin.url;
  } catch (error) {
    // Clients are served all the same.
    log.error("status-page-off", { error: error instanceof Error ? error.message : String(error) });
    return undefined;
  }
}
