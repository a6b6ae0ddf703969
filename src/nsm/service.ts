import { create } from "@bufbuild/protobuf";
import { KeyedQueue, type Latest } from "../async/index.ts";
import {
  type Connection,
  type ConnectionEvent,
  ConnectionSchema,
  MonitorConnection,
  type MonitorScopeSelector,
} from "../gen/connection_pb.ts";
import { NetworkService } from "../gen/networkservice_pb.ts";
import {
  type Call,
  defaultLimits,
  NotBegun,
  type RpcHandler,
  smallMessageLimit,
  streamHandler,
  unaryHandler,
} from "../rpc/index.ts";
import {
  type Log,
  type Metrics,
  noTracer,
  type PeerLogLimits,
  PeerLogs,
  type SpanFacts,
  type Tracer,
} from "../telemetry/index.ts";
import { EndpointSockets, type SocketShares } from "./endpoint/endpoint-sockets.ts";
import { Discovery } from "./endpoint/find-endpoints.ts";
import { NsmError, type RefusalKind, textOf } from "./fault.ts";
import { logText, toStatus } from "./grpc-status.ts";
import { FilesOfCalls } from "./mechanism/call-files.ts";
import type { MechanismDrivers } from "./mechanism/mechanism.ts";
import { declareMetrics, type ServiceMetrics } from "./metrics.ts";
import { MonitorHub } from "./monitor/monitor.ts";
import type { Caller } from "./peers.ts";
import type { Gate } from "./permission/authorize.ts";
import { type CallShare, ClientCalls } from "./permission/client-behind.ts";
import { accountableName, actingPeer, maySee, type Owner, ownerFor } from "./permission/connection-owner.ts";
import { ConnectionQuota } from "./permission/connection-quota.ts";
import type { Quota } from "./permission/quota.ts";
import { checkSelectorSize } from "./permission/request-limits.ts";
import { adoptAfterRestart } from "./request/adopt-after-restart.ts";
import { type CloseDeps, close } from "./request/close.ts";
import { ConnectionKeys } from "./request/connection-key.ts";
import { type ConnectionSummary, summaries } from "./request/connection-summary.ts";
import type { Connections } from "./request/connections.ts";
import type { ConnectionJournal, JournalEntry } from "./request/journal-entry.ts";
import { discoveryIn, inSteps, measuredSteps, tracedSteps, unwatchedSteps } from "./request/measured-steps.ts";
import type { RequestDeps } from "./request/received-request.ts";
import { request } from "./request/request.ts";
import { SegmentNames } from "./request/segment-names.ts";
import { takeDownInTurn } from "./request/teardown.ts";

/** What `composition/nsm-server.ts` gives the service. */
interface ForwarderServiceOptions extends Gate {
  /** Our name on paths and in the registry: NSM_NAME. */
  readonly name: string;
  /** Where the manager is: NSM_CONNECT_TO. It answers for the registry. */
  readonly managerTarget: string;
  readonly caller: Caller;
  readonly mechanisms: MechanismDrivers;
  readonly journal: ConnectionJournal;
  /** How long the caller keeps an unused connection, in ms: descriptors of endpoint sockets outlive that. */
  readonly callerIdleMs: number;
  /** NSM_MAX_TOKEN_LIFETIME, in ms. */
  readonly tokenLifetimeMs: number;
  /** Ids of connections that have none yet: they cannot be guessed. */
  readonly newId: () => string;
  /** Spreads retries, a number in [0, 1); the machine's by default. */
  readonly spread?: () => number;
  readonly log: Log;
  /** What peers may bring into it. */
  readonly logLimits?: PeerLogLimits | undefined;
  /** What owners may have on this node; `QUOTA` by default. */
  readonly quota?: Quota | undefined;
  /** Calls under way that come through the manager: its part of the server's. */
  readonly callsBehindManager?: CallShare;
  /** Sockets of endpoints that each owner may have; as many as it likes by default. */
  readonly endpointSockets?: SocketShares;
  /** Something was refused to a peer because it has its share. */
  readonly onRefused?: ((kind: RefusalKind) => void) | undefined;
  readonly metrics?: Metrics;
  /** Follows Requests and Closes; none by default. */
  readonly tracer?: Tracer;
}

/** The forwarder as its peers see it. */
export interface ForwarderService {
  /** NetworkService and MonitorConnection, for `serveRpc`. */
  readonly handlers: readonly RpcHandler[];
  /** The same under an earlier name of ours: for what was made under it, and for nothing new. */
  handlersUnder(name: string): readonly RpcHandler[];
  /** Earlier names that connections stand under, those of most connections first. */
  readonly earlierNames: Latest<readonly string[]>;
  /** An earlier name leads to us now, or no longer. */
  setRegistered(name: string, isRegistered: boolean): void;
  readonly connectionCount: number;
  /** For the operator: what is established, begun, or resists its end. */
  connections(): readonly ConnectionSummary[];
  /**
   * Continues with a connection that a previous instance served and that is still established: it can be watched, refreshed and
   * closed. Its virtual function must be held for it already.
   * @throws when the entry cannot be read, or its mechanism not be taken up; nothing is changed then.
   */
  adopt(entry: JournalEntry): void;
  /** Ends a connection for a reason of the node: its pod is gone. Resolves when tried; what resists is tried again. */
  endConnection(connectionId: string): Promise<void>;
  /**
   * Ends the streams and the timers; what is under way on connections is waited for, for a limited time. Other connections stay as
   * they are: clients keep their traffic.
   */
  stop(): Promise<void>;
}

/** Time after which nothing can dial a descriptor's number any more, on top of the caller's idle time. */
const SOCKET_MARGIN_MS = 10_000;

/**
 * A teardown continues when its caller has gone: it writes to the journal, and has an endpoint that does not answer for 5 s. What takes
 * longer is continued by the next instance.
 */
const STOP_LIMIT_MS = 6_000;

const CALLS_BEHIND_MANAGER: CallShare = {
  calls: defaultLimits.calls.manager,
  heldBytes: defaultLimits.heldBytes.manager,
};

/** Puts the modules' parts together into the service. */
export function createForwarderService(options: ForwarderServiceOptions): ForwarderService {
  const { clock, managerTarget, callerIdleMs, tracer = noTracer } = options;
  const steps = tracedSteps(options.metrics ? measuredSteps(options.metrics, clock) : unwatchedSteps, tracer);
  const parts = inSteps(options, steps, tracer);
  const { caller } = parts;
  const sockets = new EndpointSockets(clock, callerIdleMs + SOCKET_MARGIN_MS, options.endpointSockets);
  const connections: Connections = new Map();
  const [monitor, turns] = [new MonitorHub(), new KeyedQueue<string>()];
  const names = new SegmentNames({ own: options.name, connections, journal: options.journal });
  const metrics = options.metrics && declareMetrics(options.metrics, () => countsOf({ connections, monitor, turns }));
  const shares = sharesOf(parts, connections);
  const { logs } = shares;
  const deps: ServiceDeps = {
    ...parts,
    ...shares,
    metrics,
    steps,
    tracer,
    connections,
    names,
    keys: new ConnectionKeys({ connections, journal: options.journal, manager: options.manager }),
    monitor,
    turns,
    files: new FilesOfCalls(clock),
    discovery: discoveryIn(new Discovery({ target: managerTarget, caller, sockets, clock }), steps),
    requesting: {
      caller,
      clock,
      onCloseFailed: (endpoint, error) =>
        logs.of("endpoints").warn("endpoint-close-failed", { endpoint, error: textOf(error) }),
    },
  };
  return {
    ...namesOf(deps),
    get connectionCount() {
      return connections.size;
    },
    connections: () => summaries(connections),
    adopt: (entry) => adoptAfterRestart(deps, entry),
    async endConnection(connectionId) {
      const record = connections.get(connectionId);
      if (record) await takeDownInTurn(deps, record, { reason: "pod-gone" });
    },
    async stop() {
      monitor.stop();
      for (const { expiry, watch } of connections.values()) {
        expiry.cancel();
        watch?.stop();
      }
      await untilIdle(deps);
      for (const { expiry, watch, state } of connections.values()) {
        expiry.cancel(); // of a teardown that resisted meanwhile, or a Request that was answered
        watch?.stop();
        state.attachment?.close();
      }
      sockets.stop();
      logs.stop();
    },
  };
}

/** The service under our name of today, and under earlier ones. */
function namesOf(deps: ServiceDeps) {
  const { names } = deps;
  return {
    handlers: handlersOf(deps),
    handlersUnder: (name: string) => handlersOf({ ...deps, name, isEarlierName: true }),
    earlierNames: names.earlier,
    setRegistered: (name: string, isRegistered: boolean) => names.setRegistered(name, isRegistered),
  };
}

/** What each peer may have here. */
function sharesOf(options: ForwarderServiceOptions, connections: Connections) {
  const { log, clock, logLimits: limits, quota, callsBehindManager = CALLS_BEHIND_MANAGER } = options;
  const { onRefused = () => {} } = options;
  const isManager = (peer: string) => peer === options.manager.spiffeId;
  const logs = new PeerLogs({ log, clock, limits, isManager, onLeftOut: () => onRefused("log-lines") });
  return {
    quota: new ConnectionQuota(connections, { logs, clock, quota, onRefused }),
    clientCalls: new ClientCalls(callsBehindManager),
    logs,
    onRefused,
  };
}

async function untilIdle({ turns, clock, log }: Pick<ServiceDeps, "turns" | "clock" | "log">): Promise<void> {
  if (turns.busyKeys === 0) return;
  const limit = new AbortController();
  const late = clock.sleep(STOP_LIMIT_MS, limit.signal).then(
    () => log.warn("connections-under-way", { count: turns.busyKeys }),
    () => {}, // idle before
  );
  await Promise.race([turns.idle(), late]);
  limit.abort();
}

function handlersOf(deps: ServiceDeps): readonly RpcHandler[] {
  return [
    unaryHandler(NetworkService.method.request, (message, call) =>
      answer(deps, { method: "Request", call, connection: message.connection }, (log) =>
        request({ ...deps, log }, message, call),
      ),
    ),
    unaryHandler(NetworkService.method.close, (message, call) =>
      answer(deps, { method: "Close", call, connection: message }, async (log) => {
        await close({ ...deps, log }, message, call);
        return {};
      }),
    ),
    streamHandler(
      MonitorConnection.method.monitorConnections,
      (selector, call) => watch(deps, selector, call),
      smallMessageLimit,
    ),
  ];
}

function countsOf({ connections, monitor, turns }: Pick<ServiceDeps, "connections" | "monitor" | "turns">) {
  const phases = [...connections.values()].map(({ state }) => state.phase);
  const reclaiming = phases.filter((phase) => phase === "reclaiming").length;
  const established = phases.length - reclaiming;
  return { established, reclaiming, watchers: monitor.subscriberCount, waiting: turns.waiting };
}

/** Runs one call to its end, whatever that is: measured, and a failure reported to the log and the caller alike. */
async function answer<T>(deps: ServiceDeps, served: ServedCall, work: (log: Log) => Promise<T>): Promise<T> {
  const owner = accountable(deps, served);
  const log = deps.logs.of(accountableName(owner));
  const client = owner.isManager ? owner.client : undefined;
  const startedMs = deps.clock.monotonicMs();
  const ended = (code: string) => deps.metrics?.ended(served.method, code, deps.clock.monotonicMs() - startedMs);
  try {
    const isCounted = served.method === "Request";
    const comer = { client, heldBytes: served.call.heldBytes ?? 0 };
    const run = () => (isCounted ? counted(deps, comer, () => work(log)) : work(log));
    const result = await deps.tracer.serve(nameOf(served), served.call.metadata, factsOf(served), run);
    ended("OK");
    return result;
  } catch (error) {
    const status = toStatus(error);
    ended(status.code);
    const facts = { method: served.method, caller: owner.spiffeId, client };
    if (status instanceof NotBegun) log.info("caller-rotated", facts);
    else log.warn("call-failed", { ...facts, code: status.code, error: logText(error) });
    throw status;
  }
}

/** Before the path is judged: what is claimed falsely here is refused there, and until then is in the account of who is named. */
function accountable({ manager, name }: ServiceDeps, { call, connection }: ServedCall): Owner {
  return ownerFor(actingPeer(call.connection.peer, connection ?? create(ConnectionSchema), name), manager);
}

/** One client behind the manager leaves room for the Requests of others. A Close makes room, so it is never refused for want of it. */
async function counted<T>(deps: ServiceDeps, { client, heldBytes }: Comer, work: () => Promise<T>): Promise<T> {
  if (client === undefined) return await work();
  if (!deps.clientCalls.begin(client, heldBytes)) {
    deps.onRefused("client-calls");
    throw new NsmError({ kind: "too-many-calls", client });
  }
  try {
    return await work();
  } finally {
    deps.clientCalls.end(client, heldBytes);
  }
}

interface Comer {
  readonly client: string | undefined;
  readonly heldBytes: number;
}

interface ServedCall {
  readonly method: "Request" | "Close";
  readonly call: Call;
  readonly connection: Connection | undefined;
}

/** As OpenTelemetry's conventions name a gRPC call. */
function nameOf({ method }: ServedCall): string {
  return `${NetworkService.typeName}/${method}`;
}

/** Longest text of a peer that goes into a trace. */
const LONGEST_FACT = 128;

function factsOf({ connection }: ServedCall): SpanFacts {
  const { id = "", networkService = "", mechanism } = connection ?? {};
  const facts = { "nsm.connection": id, "nsm.network_service": networkService, "nsm.mechanism": mechanism?.type ?? "" };
  const known = Object.entries(facts).filter(([, text]) => text !== "");
  return Object.fromEntries(known.map(([name, text]) => [name, text.slice(0, LONGEST_FACT)]));
}

type ServiceDeps = RequestDeps &
  CloseDeps & {
    readonly metrics: ServiceMetrics | undefined;
    readonly tracer: Tracer;
    readonly logs: PeerLogs;
    readonly clientCalls: ClientCalls;
  };

/** The caller sees the connections that are its own, and no others: docs/decisions/011-who-may-act-on-a-connection.md. */
function watch(deps: RequestDeps, selector: MonitorScopeSelector, call: Call): AsyncIterable<ConnectionEvent> {
  const peer = call.connection.peer;
  if (!peer) throw toStatus(new NsmError({ kind: "no-identity", problem: "the caller has no certificate" }));
  try {
    checkSelectorSize(selector);
  } catch (error) {
    throw toStatus(error);
  }
  return deps.monitor.subscribe({
    selector,
    sees: (owner) => maySee(peer.spiffeId, owner, deps.manager),
    signal: call.signal,
  });
}
