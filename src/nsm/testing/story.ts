// A forwarder with its whole cast, for this room's tests only.
import { KeyedQueue } from "../../async/index.ts";
import type { Connection, ConnectionEvent } from "../../gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../../gen/networkservice_pb.ts";
import type { RpcError } from "../../rpc/index.ts";
import { recordingLog } from "../../telemetry/recording-log.ts";
import { EndpointSockets } from "../endpoint/endpoint-sockets.ts";
import { Discovery } from "../endpoint/find-endpoints.ts";
import { toStatus } from "../grpc-status.ts";
import { kernelDriver } from "../mechanism/kernel.ts";
import { noopDriver } from "../mechanism/noop.ts";
import { PassedFiles } from "../mechanism/passed-files.ts";
import { MonitorHub } from "../monitor/monitor.ts";
import type { JournalEntry } from "../needs.ts";
import { ConnectionQuota } from "../permission/connection-quota.ts";
import { type CloseDeps, close } from "../request/close.ts";
import type { Connections } from "../request/connections.ts";
import { type RequestDeps, request } from "../request/request.ts";
import { HandClock, Manager, NETNS, PaperFd, PaperVfs, paperTokens } from "./cast.ts";
import { Outside } from "./cast-outside.ts";

interface Said {
  readonly from?: Manager;
  readonly signal?: AbortSignal;
  readonly deadlineMs?: number;
  readonly tokenMs?: number;
}

/** The room at work, without sockets and without a node. */
export class Story {
  readonly clock = new HandClock();
  readonly log = recordingLog();
  readonly outside = new Outside();
  readonly vfs = new PaperVfs();
  readonly manager = new Manager(this.clock);
  readonly journal = new PaperJournal();
  readonly deps: RequestDeps & CloseDeps;
  #currentManager = this.manager.peer.spiffeId;
  #ids = 0;

  constructor() {
    PaperFd.open = 0;
    this.manager.fds.sent.add(NETNS);
    const { clock, log, outside: caller, journal } = this;
    const sockets = new EndpointSockets(clock, 1_000);
    const connections: Connections = new Map();
    const currentManager = () => this.#currentManager;
    this.deps = {
      name: "fwd",
      newId: () => `f${++this.#ids}`,
      clock,
      log,
      connections,
      quota: new ConnectionQuota(connections, log),
      journal,
      turns: new KeyedQueue<string>(),
      monitor: new MonitorHub(),
      files: new PassedFiles(clock),
      tokens: paperTokens(clock),
      policies: {
        check({ segments, index, nowMs }) {
          const expiresMs = Number(segments[index - 1]?.token.split("@")[1]);
          if (!(expiresMs > nowMs)) throw new Error("no sufficient privileges");
        },
      },
      manager: {
        get spiffeId() {
          return currentManager();
        },
      },
      mechanisms: { KERNEL: kernelDriver(this.vfs), NOOP: noopDriver },
      discovery: new Discovery({ target: "unix:///nsmgr", caller, sockets, clock }),
      asking: { caller, clock, onCloseFailed: () => {} },
    };
  }

  get vf() {
    return this.vfs.vf;
  }

  get connections(): number {
    return this.deps.connections.size;
  }

  stranger(name: string): Manager {
    const stranger = new Manager(this.clock, name);
    stranger.fds.sent.add(NETNS);
    return stranger;
  }

  /** The manager's pod was made anew and we have registered with it. */
  newManager(name: string): Manager {
    const manager = this.stranger(name);
    this.#currentManager = manager.peer.spiffeId;
    return manager;
  }

  async request(message: NetworkServiceRequest, said: Said = {}): Promise<Connection> {
    return await request(this.deps, message, (said.from ?? this.manager).call(said));
  }

  /** The status of a Request that must fail. */
  async failed(message: NetworkServiceRequest, said: Said = {}): Promise<RpcError> {
    try {
      await this.request(message, said);
    } catch (error) {
      return toStatus(error);
    }
    throw new Error("The Request was answered, it should have failed");
  }

  async close(connection: Connection, said: Said = {}): Promise<void> {
    await close(this.deps, connection, (said.from ?? this.manager).call(said));
  }

  /** What a subscriber of the manager hears from now on. */
  listen(from = this.manager): ConnectionEvent[] {
    const heard: ConnectionEvent[] = [];
    const events = this.deps.monitor.subscribe({
      selector: { $typeName: "connection.MonitorScopeSelector", pathSegments: [], networkServices: [] },
      sees: (owner) => owner.spiffeId === from.peer.spiffeId,
      signal: new AbortController().signal,
    });
    void (async () => {
      for await (const event of events) heard.push(event);
    })();
    return heard;
  }
}

class PaperJournal {
  readonly puts: JournalEntry[] = [];
  readonly drops: string[] = [];
  #heldStage: JournalEntry["stage"] | undefined;
  #letGo: Promise<void> | undefined;

  /** Entries of this stage are on their way to the disk until the returned function is called. */
  holdBack(stage: JournalEntry["stage"]): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#heldStage = stage;
    this.#letGo = promise;
    return resolve;
  }

  async put(entry: JournalEntry): Promise<void> {
    this.puts.push(entry);
    if (entry.stage === this.#heldStage) await this.#letGo;
  }

  async drop(connectionId: string): Promise<void> {
    this.drops.push(connectionId);
  }
}
