// NSM on this node's sockets: the service behind its server, and its entry in the registry.

import type { Clock, Random, UndoStack } from "../async/index.ts";
import { type Budgets, describeBudgets } from "../budgets.ts";
import {
  checkPath,
  type Identity,
  type Policy,
  type SpiffeIdPattern,
  selectPolicies,
  serverPolicyMasks,
  tokenHeaders,
} from "../identity/index.ts";
import type { Fd } from "../kernel/index.ts";
import {
  answerPolicies,
  type ConnectionJournal,
  type ConnectionSummary,
  createForwarderService,
  type ForwarderService,
  type JournalEntry,
  type MechanismDrivers,
  Registration,
} from "../nsm/index.ts";
import { registryPolicies } from "../opa/index.ts";
import {
  defaultMessageLimit,
  PeerLimits,
  RpcClient,
  type RpcHandler,
  RpcHealth,
  serveRpc,
  smallMessageLimit,
  type Transport,
} from "../rpc/index.ts";
import type { Health, Log, Metrics, Tracer } from "../telemetry/index.ts";
import { EarlierNames } from "./earlier-names.ts";
import { declareRefusals } from "./refusals.ts";

/** What the environment says about NSM; names and units as in config.ts. */
export interface NsmSettings {
  readonly name: string;
  readonly networkServices: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly connectTo: string;
  /** Who may be the manager; undefined: any peer that answers there. */
  readonly managerSpiffeId?: readonly SpiffeIdPattern[] | undefined;
  readonly dialTimeoutMs: number;
  readonly maxTokenLifetimeMs: number;
  readonly registryClientPolicies: readonly string[];
  /** Folder of our socket. */
  readonly statePath: string;
}

interface NsmServerOptions {
  readonly settings: NsmSettings;
  readonly identity: Identity;
  readonly mechanisms: MechanismDrivers;
  readonly journal: ConnectionJournal;
  /** What a previous instance left, to be continued or taken down. */
  readonly left: readonly JournalEntry[];
  readonly metrics: Metrics;
  readonly tracer: Tracer;
  readonly health: Health;
  readonly clock: Clock;
  readonly random: Random;
  readonly transport: Transport | undefined;
  /** What peers may have. */
  readonly budgets: Budgets;
  readonly log: Log;
}

/** The served service. */
export interface NsmServer {
  /** `unix:///…` */
  readonly url: string;
  readonly connectionCount: number;
  /** Continues with a connection that a previous instance served; what cannot be adopted is reported. */
  adopt(entry: JournalEntry): void;
  /** For the operator. */
  connections(): readonly ConnectionSummary[];
  /** Takes a connection down for a reason of the node: its pod has gone. What fails is reported and tried again. */
  endConnection(connectionId: string): Promise<void>;
  /** Registers with the manager; resolves at the first success and keeps the registration from then on. */
  register(signal: AbortSignal): Promise<void>;
}

/** A kept connection to a peer is closed after so long without a call: longer than stock clients take to refresh. */
const CALLER_IDLE_MS = 300_000;
const STOP_GRACE_MS = 2_000;
const SERVICES = ["networkservice.NetworkService", "connection.MonitorConnection"];

/**
 * Serves NSM. What is to be stopped later is pushed on `undo`.
 * @throws {IdentityError} when a policy mask cannot be read, or names what cannot be run, {RpcError} when the socket cannot be listened on.
 */
export async function serveNsm(options: NsmServerOptions, undo: UndoStack): Promise<NsmServer> {
  const { settings, identity, clock, log } = options;
  if (!settings.managerSpiffeId) log.info("manager-not-pinned", { manager: settings.connectTo });
  const manager: { registration: Registration | undefined } = { registration: undefined };
  const { limits, owners, ofService } = openShares(options, () => manager.registration?.spiffeId);
  const caller = openCaller(options, owners);
  undo.push("calls to peers", () => caller.close());
  const { policies } = selectPolicies(serverPolicyMasks);
  const service = createForwarderService({
    name: settings.name,
    managerTarget: settings.connectTo,
    manager: {
      get spiffeId() {
        return manager.registration?.spiffeId;
      },
    },
    caller,
    issueToken: (audience, shown) => identity.issueToken(audience, settings.maxTokenLifetimeMs, shown),
    checkPath: (path) => checkPath(policies, path),
    mechanisms: options.mechanisms,
    journal: options.journal,
    callerIdleMs: CALLER_IDLE_MS,
    endpointSockets: {
      each: limits.endpointSockets.each,
      add: (socket) => owners.addSocket(socket),
      remove: (socket) => owners.removeSocket(socket),
      leave: (target) => caller.leave(target),
    },
    tokenLifetimeMs: settings.maxTokenLifetimeMs,
    ...ofService,
    metrics: options.metrics,
    tracer: options.tracer,
    newId: options.random.uuid,
    spread: options.random.fraction,
    clock,
    log,
  });
  undo.push("connections", () => service.stop());
  const adopt = (entry: JournalEntry) => adoptOne(service, options.log, entry);
  for (const entry of options.left) adopt(entry);
  const { registration, earlierNames, url } = await openSockets(options, { service, caller, limits, owners }, undo);
  manager.registration = registration;
  return {
    url,
    get connectionCount() {
      return service.connectionCount;
    },
    adopt,
    connections: () => service.connections(),
    endConnection: (connectionId) => service.endConnection(connectionId),
    async register(signal) {
      undo.push("registration", async () => {
        await Promise.all([registration.stop(), earlierNames.unregister()]);
      });
      registration.start();
      await untilRegistered(registration, signal);
      earlierNames.start();
    },
  };
}

async function choosePolicies({ settings, log }: NsmServerOptions): Promise<readonly Policy[]> {
  const { policies, warnings } = await registryPolicies(settings.registryClientPolicies);
  for (const sentence of warnings) log.warn("registry-policies-warning", { sentence });
  log.info("registry-policies", { policies: policies.map(({ name }) => name) });
  return policies;
}

interface SocketParts {
  readonly service: ForwarderService;
  readonly caller: RpcClient;
  readonly limits: Budgets["rpc"];
  readonly owners: PeerLimits;
}

/** Our socket, with our entry in the registry, and those of earlier names. Neither entry is begun. */
async function openSockets(
  options: NsmServerOptions,
  { service, caller, limits, owners }: SocketParts,
  undo: UndoStack,
) {
  const { settings, identity, transport, random, clock, log } = options;
  const health = new RpcHealth();
  const tools = { health, tls: identity, transport, limits, owners, log, clock };
  const serve = (file: string, handlers: readonly RpcHandler[]) =>
    serveRpc({ url: `unix://${settings.statePath}/${file}`, handlers, ...tools });
  const server = await serve("forwarder.sock", service.handlers);
  const checkAnswer = answerPolicies(await choosePolicies(options));
  const earlierNames = new EarlierNames({
    service,
    serve: (nth, handlers) => serve(`forwarder-${nth}.sock`, handlers),
    register: (name, socket) => openRegistration(options, { name, isEarlierName: true, caller, checkAnswer, socket }),
    graceMs: STOP_GRACE_MS,
    spread: random.fraction,
    clock,
    log,
  });
  undo.push("gRPC servers", async () => {
    await Promise.all([server.stop(STOP_GRACE_MS), earlierNames.stopServers()]);
  });
  for (const name of SERVICES) health.set(name, true);
  undo.push("gRPC health", () => health.stopAll());
  const socket = server.openSocket();
  undo.push("descriptor of the socket", () => socket.close());
  const registration = openRegistration(options, { name: settings.name, caller, checkAnswer, socket });
  reportRegistration(options, registration);
  return { registration, earlierNames, url: server.url };
}

/** What peers may have, as it is counted, refused and reported. */
function openShares({ budgets, metrics, clock, log }: NsmServerOptions, managerId: () => string | undefined) {
  log.info("budgets", describeBudgets(budgets));
  const refused = declareRefusals(metrics, clock, log);
  const { rpc: limits, quota } = budgets;
  const owners = new PeerLimits({ limits, clock, isManager: (owner) => owner === managerId(), onRefused: refused });
  const callsBehindManager = { calls: limits.calls.manager, heldBytes: limits.heldBytes.manager };
  return { limits, owners, ofService: { quota, callsBehindManager, onRefused: refused } };
}

function openCaller(options: NsmServerOptions, owners: PeerLimits): RpcClient {
  const { settings, identity, transport, clock, log } = options;
  return new RpcClient({
    transport,
    owners,
    tls: identity,
    log,
    clock,
    dialTimeoutMs: settings.dialTimeoutMs,
    idleMs: CALLER_IDLE_MS,
    checkPeer: (target, peer) => {
      if (target === settings.connectTo) checkManager(peer?.spiffeId, settings.managerSpiffeId);
    },
    answerLimit: ({ parent }) => (parent.typeName.startsWith("registry.") ? smallMessageLimit : defaultMessageLimit),
    credentials: (peer, shown) => tokenHeaders(identity.issueToken(peer, settings.maxTokenLifetimeMs, shown)),
  });
}

/** @throws {Error} when another peer than the manager answers where the manager should. */
function checkManager(spiffeId: string | undefined, patterns: NsmSettings["managerSpiffeId"]): void {
  if (!patterns || (spiffeId !== undefined && patterns.some((pattern) => pattern.matches(spiffeId)))) return;
  const wanted = patterns.map(({ text }) => text).join(" or ");
  throw new Error(`${spiffeId ?? "a peer without a SPIFFE ID"} answers, and NSM_MANAGER_SPIFFE_ID wants ${wanted}`);
}

/** One entry of ours in the registry. */
interface Entry {
  readonly name: string;
  readonly isEarlierName?: boolean;
  readonly caller: RpcClient;
  readonly checkAnswer: ReturnType<typeof answerPolicies>;
  readonly socket: Fd;
}

function openRegistration({ settings, identity, random, clock, log }: NsmServerOptions, entry: Entry): Registration {
  const { socket, ...rest } = entry;
  return new Registration({
    ...rest,
    networkServices: settings.networkServices,
    labels: settings.labels,
    managerTarget: settings.connectTo,
    socket: { fd: socket, id: socket.id() },
    tokenLifetimeMs: settings.maxTokenLifetimeMs,
    onIdentity: (listener) => identity.onChange(listener),
    random: random.fraction,
    clock,
    log,
  });
}

function reportRegistration({ settings, health }: NsmServerOptions, registration: Registration): void {
  const missing = health.condition("not-registered", `Not registered yet with the manager at ${settings.connectTo}`);
  registration.state.onChange((state) => {
    if (state.kind === "registered") missing.clear();
    else missing.raise(`Not registered with the manager at ${settings.connectTo}: ${state.problem}`);
  });
}

async function untilRegistered(registration: Registration, signal: AbortSignal): Promise<void> {
  let state = await registration.state.first(signal);
  while (state.kind !== "registered") state = await registration.state.next(signal);
}

/** What cannot be taken up keeps its VF and its place in the journal: a later start may know more. */
function adoptOne(service: ForwarderService, log: Log, entry: JournalEntry): void {
  const { connectionId: connection, stage } = entry;
  try {
    service.adopt(entry);
    log.info("connection-adopted", { connection, stage });
  } catch (error) {
    log.error("connection-not-adopted", { connection, stage, error: String(error) });
  }
}
