import { randomUUID } from "node:crypto";
import { type Clock, KeyedQueue } from "../async/index.ts";
import {
  type Connection,
  type ConnectionEvent,
  MonitorConnection,
  type MonitorScopeSelector,
} from "../gen/connection_pb.ts";
import { NetworkService, type NetworkServiceRequest } from "../gen/networkservice_pb.ts";
import { type RpcHandler, streamHandler, unaryHandler } from "../rpc/index.ts";
import type { Log } from "../telemetry/index.ts";
import { adoptConnection } from "./adopt.ts";
import { type CloseDeps, close } from "./close.ts";
import type { Connections } from "./connections.ts";
import { NsmError, textOf } from "./fault.ts";
import { checkSelectorSize } from "./limits.ts";
import type { MechanismDrivers } from "./mechanism.ts";
import { MonitorHub } from "./monitor.ts";
import type { Caller, ConnectionJournal, IncomingCall, JournalEntry, PathPolicies, Tokens } from "./needs.ts";
import { type ManagerSource, mayAct } from "./owner.ts";
import { PassedFiles } from "./passed-files.ts";
import { Discovery } from "./registry.ts";
import { type RequestDeps, request } from "./request.ts";
import { EndpointSockets } from "./sockets.ts";
import { toStatus } from "./status.ts";
import { takeDownInTurn } from "./teardown.ts";

/** What `forwarder.ts` gives the service. */
export interface ForwarderServiceOptions {
  /** Our name on paths and in the registry: NSM_NAME. */
  readonly name: string;
  /** Where the manager is: NSM_CONNECT_TO. It answers for the registry. */
  readonly managerTarget: string;
  /** Who the manager is: the `Registration` knows. */
  readonly manager: ManagerSource;
  readonly caller: Caller;
  readonly tokens: Tokens;
  readonly policies: PathPolicies;
  readonly mechanisms: MechanismDrivers;
  readonly journal: ConnectionJournal;
  /** How long the caller keeps an unused connection, in ms: descriptors of endpoint sockets outlive that. */
  readonly callerIdleMs: number;
  readonly clock: Clock;
  readonly log: Log;
}

/** The forwarder as its peers see it. */
export interface ForwarderService {
  /** NetworkService and MonitorConnection, for `serveRpc`. */
  readonly handlers: readonly RpcHandler[];
  readonly connectionCount: number;
  /**
   * Goes on with a connection that an earlier process served and that still stands: it can be watched, refreshed and
   * closed. Its virtual function must be held for it already.
   * @throws when the entry cannot be read, or its mechanism not be taken up; nothing is changed then.
   */
  adopt(entry: JournalEntry): void;
  /** Ends a connection for a reason of the node: its pod is gone. Resolves when tried; what resists is tried again. */
  endConnection(connectionId: string): Promise<void>;
  /** Ends the streams and the timers. Connections stay as they are: clients keep their traffic. */
  stop(): void;
}

/** Time after which nothing can dial a descriptor's number any more, on top of the caller's idle time. */
const SOCKET_MARGIN_MS = 10_000;

/** Puts the rooms' parts together into the service. */
export function createForwarderService(options: ForwarderServiceOptions): ForwarderService {
  const { clock, log, caller, managerTarget, callerIdleMs } = options;
  const sockets = new EndpointSockets(clock, callerIdleMs + SOCKET_MARGIN_MS);
  const connections: Connections = new Map();
  const monitor = new MonitorHub();
  const deps: RequestDeps & CloseDeps = {
    ...options,
    newId: randomUUID,
    connections,
    monitor,
    turns: new KeyedQueue<string>(),
    files: new PassedFiles(clock),
    discovery: new Discovery({ target: managerTarget, caller, sockets, clock }),
    asking: {
      caller,
      clock,
      onCloseFailed: (endpoint, error) => log.warn("endpoint-close-failed", { endpoint, error: textOf(error) }),
    },
  };
  return {
    handlers: [
      unaryHandler(NetworkService.method.request, (message, call) => answerRequest(deps, message, call)),
      unaryHandler(NetworkService.method.close, (message, call) => answerClose(deps, message, call)),
      streamHandler(MonitorConnection.method.monitorConnections, (selector, call) => watch(deps, selector, call)),
    ],
    get connectionCount() {
      return connections.size;
    },
    adopt: (entry) => adoptConnection(deps, entry),
    async endConnection(connectionId) {
      const record = connections.get(connectionId);
      if (record) await takeDownInTurn(deps, record, "pod-gone");
    },
    stop() {
      monitor.stop();
      for (const record of connections.values()) {
        record.expiry.cancel();
        record.watch?.stop();
      }
      sockets.stop();
    },
  };
}

async function answerRequest(
  deps: RequestDeps,
  message: NetworkServiceRequest,
  call: IncomingCall,
): Promise<Connection> {
  try {
    return await request(deps, message, call);
  } catch (error) {
    const status = toStatus(error);
    deps.log.warn("request-failed", {
      caller: call.connection.peer?.spiffeId,
      code: status.code,
      error: status.message,
    });
    throw status;
  }
}

async function answerClose(deps: CloseDeps, message: Connection, call: IncomingCall): Promise<Record<string, never>> {
  try {
    await close(deps, message, call);
    return {};
  } catch (error) {
    const status = toStatus(error);
    deps.log.warn("close-failed", { caller: call.connection.peer?.spiffeId, code: status.code, error: status.message });
    throw status;
  }
}

/** Whoever is asking sees the connections that are its own, and no others: docs/decisions. */
function watch(deps: RequestDeps, selector: MonitorScopeSelector, call: IncomingCall): AsyncIterable<ConnectionEvent> {
  checkSelectorSize(selector);
  const peer = call.connection.peer;
  if (!peer) throw toStatus(new NsmError({ kind: "no-identity", problem: "the caller has no certificate" }));
  return deps.monitor.subscribe({
    selector,
    sees: (owner) => mayAct(peer.spiffeId, owner, deps.manager),
    signal: call.signal,
  });
}
