import { KeyedQueue } from "../async/index.ts";
import {
  type Connection,
  type ConnectionEvent,
  MonitorConnection,
  type MonitorScopeSelector,
} from "../gen/connection_pb.ts";
import { NetworkService } from "../gen/networkservice_pb.ts";
import { type Call, NotBegun, type RpcHandler, smallMessageLimit, streamHandler, unaryHandler } from "../rpc/index.ts";
import { type Log, type Metrics, noTracer, type SpanFacts, type Tracer } from "../telemetry/index.ts";
import { EndpointSockets } from "./endpoint/endpoint-sockets.ts";
import { Discovery } from "./endpoint/find-endpoints.ts";
import { NsmError, textOf } from "./fault.ts";
import { toStatus } from "./grpc-status.ts";
import { FilesOfCalls } from "./mechanism/call-files.ts";
import type { MechanismDrivers } from "./mechanism/mechanism.ts";
import { declareMetrics, type ServiceMetrics } from "./metrics.ts";
import { MonitorHub } from "./monitor/monitor.ts";
import type { Caller } from "./peers.ts";
import type { Gate } from "./permission/authorize.ts";
import { mayAct } from "./permission/connection-owner.ts";
import { ConnectionQuota } from "./permission/connection-quota.ts";
import { checkSelectorSize } from "./permission/request-limits.ts";
import { adoptAfterRestart } from "./request/adopt-after-restart.ts";
import { type CloseDeps, close } from "./request/close.ts";
import { type ConnectionSummary, summaries } from "./request/connection-summary.ts";
import type { Connections } from "./request/connections.ts";
import type { ConnectionJournal, JournalEntry } from "./request/journal-entry.ts";
import { discoveryIn, inSteps, measuredSteps, tracedSteps, unwatchedSteps } from "./request/measured-steps.ts";
import { type RequestDeps, request } from "./request/request.ts";
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
  /** Ids of connections that have none yet: they cannot be guessed. */
  readonly newId: () => string;
  /** Spreads retries, a number in [0, 1); the machine's by default. */
  readonly spread?: () => number;
  readonly log: Log;
  readonly metrics?: Metrics;
  /** Follows Requests and Closes; none by default. */
  readonly tracer?: Tracer;
}

/** The forwarder as its peers see it. */
export interface ForwarderService {
  /** NetworkService and MonitorConnection, for `serveRpc`. */
  readonly handlers: readonly RpcHandler[];
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

/** Puts the modules' parts together into the service. */
export function createForwarderService(options: ForwarderServiceOptions): ForwarderService {
  const { clock, log, managerTarget, callerIdleMs, tracer = noTracer } = options;
  const steps = tracedSteps(options.metrics ? measuredSteps(options.metrics, clock) : unwatchedSteps, tracer);
  const parts = inSteps(options, steps, tracer);
  const { caller } = parts;
  const sockets = new EndpointSockets(clock, callerIdleMs + SOCKET_MARGIN_MS);
  const connections: Connections = new Map();
  const monitor = new MonitorHub();
  const turns = new KeyedQueue<string>();
  const metrics = options.metrics && declareMetrics(options.metrics, () => countsOf({ connections, monitor, turns }));
  const deps: ServiceDeps = {
    ...parts,
    metrics,
    steps,
    quota: new ConnectionQuota(connections, log, (kind) => metrics?.overQuota(kind)),
    tracer,
    newId: options.newId,
    connections,
    monitor,
    turns,
    files: new FilesOfCalls(clock),
    discovery: discoveryIn(new Discovery({ target: managerTarget, caller, sockets, clock }), steps),
    asking: {
      caller,
      clock,
      onCloseFailed: (endpoint, error) => log.warn("endpoint-close-failed", { endpoint, error: textOf(error) }),
    },
  };
  return {
    handlers: handlersOf(deps),
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
    },
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
      answer(deps, { method: "Request", call, connection: message.connection }, () => request(deps, message, call)),
    ),
    unaryHandler(NetworkService.method.close, (message, call) =>
      answer(deps, { method: "Close", call, connection: message }, async () => {
        await close(deps, message, call);
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
async function answer<T>(deps: ServiceDeps, ask: Asked, work: () => Promise<T>): Promise<T> {
  const startedMs = deps.clock.monotonicMs();
  const ended = (code: string) => deps.metrics?.ended(ask.method, code, deps.clock.monotonicMs() - startedMs);
  try {
    const result = await deps.tracer.serve(nameOf(ask), ask.call.metadata, factsOf(ask), work);
    ended("OK");
    return result;
  } catch (error) {
    const status = toStatus(error);
    ended(status.code);
    const caller = ask.call.connection.peer?.spiffeId;
    if (status instanceof NotBegun) deps.log.info("caller-rotated", { method: ask.method, caller });
    else deps.log.warn("call-failed", { method: ask.method, caller, code: status.code, error: status.message });
    throw status;
  }
}

interface Asked {
  readonly method: "Request" | "Close";
  readonly call: Call;
  readonly connection: Connection | undefined;
}

/** As OpenTelemetry's conventions name a gRPC call. */
function nameOf({ method }: Asked): string {
  return `${NetworkService.typeName}/${method}`;
}

/** Longest text of a peer that goes into a trace. */
const LONGEST_FACT = 128;

function factsOf({ connection }: Asked): SpanFacts {
  const { id = "", networkService = "", mechanism } = connection ?? {};
  const facts = { "nsm.connection": id, "nsm.network_service": networkService, "nsm.mechanism": mechanism?.type ?? "" };
  const known = Object.entries(facts).filter(([, text]) => text !== "");
  return Object.fromEntries(known.map(([name, text]) => [name, text.slice(0, LONGEST_FACT)]));
}

type ServiceDeps = RequestDeps & CloseDeps & { readonly metrics: ServiceMetrics | undefined; readonly tracer: Tracer };

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
    sees: (owner) => mayAct(peer.spiffeId, owner, deps.manager),
    signal: call.signal,
  });
}
