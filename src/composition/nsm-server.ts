// NSM on this node's sockets: the service behind its server, and its entry in the registry.
import type { Clock, Random, UndoStack } from "../async/index.ts";
import { checkPath, type Identity, selectPolicies, serverPolicyMasks, tokenHeaders } from "../identity/index.ts";
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
import {
  defaultMessageLimit,
  RpcClient,
  RpcHealth,
  serveRpc,
  smallMessageLimit,
  type Transport,
} from "../rpc/index.ts";
import type { Health, Log, Metrics, Tracer } from "../telemetry/index.ts";

/** What the environment says about NSM; names and units as in config.ts. */
export interface NsmSettings {
  readonly name: string;
  readonly networkServiceName: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly connectTo: string;
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
 * @throws {IdentityError} when a policy mask matches nothing, {RpcError} when the socket cannot be listened on.
 */
export async function serveNsm(options: NsmServerOptions, undo: UndoStack): Promise<NsmServer> {
  const { settings, identity, transport, clock, log } = options;
  const caller = openCaller(options);
  undo.push("calls to peers", () => caller.close());
  const manager: { registration: Registration | undefined } = { registration: undefined };
  const policies = selectPolicies(serverPolicyMasks);
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
  const path = `${settings.statePath}/forwarder.sock`;
  const health = new RpcHealth();
  const handlers = service.handlers;
  const server = await serveRpc({ url: `unix://${path}`, tls: identity, transport, handlers, health, log, clock });
  undo.push("gRPC server", () => server.stop(STOP_GRACE_MS));
  for (const name of SERVICES) health.set(name, true);
  undo.push("gRPC health", () => health.stopAll());
  const socket = server.openSocket();
  undo.push("descriptor of the socket", () => socket.close());
  const registration = openRegistration(options, caller, socket);
  manager.registration = registration;
  return {
    url: server.url,
    get connectionCount() {
      return service.connectionCount;
    },
    adopt,
    connections: () => service.connections(),
    endConnection: (connectionId) => service.endConnection(connectionId),
    async register(signal) {
      undo.push("registration", () => registration.stop());
      registration.start();
      await untilRegistered(registration, signal);
    },
  };
}

function openCaller({ settings, identity, transport, clock, log }: NsmServerOptions): RpcClient {
  return new RpcClient({
    transport,
    tls: identity,
    log,
    clock,
    dialTimeoutMs: settings.dialTimeoutMs,
    idleMs: CALLER_IDLE_MS,
    answerLimit: ({ parent }) => (parent.typeName.startsWith("registry.") ? smallMessageLimit : defaultMessageLimit),
    credentials: (peer, shown) => tokenHeaders(identity.issueToken(peer, settings.maxTokenLifetimeMs, shown)),
  });
}

function openRegistration(
  { settings, health, random, clock, log }: NsmServerOptions,
  caller: RpcClient,
  socket: Fd,
): Registration {
  const registration = new Registration({
    name: settings.name,
    networkService: settings.networkServiceName,
    labels: settings.labels,
    managerTarget: settings.connectTo,
    socket: { fd: socket, id: socket.id() },
    tokenLifetimeMs: settings.maxTokenLifetimeMs,
    caller,
    checkAnswer: answerPolicies(settings.registryClientPolicies),
    random: random.fraction,
    clock,
    log,
  });
  const missing = health.condition("not-registered", `Not registered yet with the manager at ${settings.connectTo}`);
  registration.state.onChange((state) => {
    if (state.kind === "registered") missing.clear();
    else missing.raise(`Not registered with the manager at ${settings.connectTo}: ${state.problem}`);
  });
  return registration;
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
