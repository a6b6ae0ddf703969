// A forwarder with its whole cast, for this module's tests only.
import assert from "node:assert/strict";
import { KeyedQueue } from "../../async/index.ts";
import type { Connection, ConnectionEvent, PathSegment } from "../../gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../../gen/networkservice_pb.ts";
import type { RpcError } from "../../rpc/index.ts";
import { recordingLog } from "../../telemetry/recording-log.ts";
import { EndpointSockets } from "../endpoint/endpoint-sockets.ts";
import { Discovery } from "../endpoint/find-endpoints.ts";
import { toStatus } from "../grpc-status.ts";
import { FilesOfCalls } from "../mechanism/call-files.ts";
import { MonitorHub } from "../monitor/monitor.ts";
import { ConnectionQuota } from "../permission/connection-quota.ts";
import { adoptAfterRestart } from "../request/adopt-after-restart.ts";
import { type CloseDeps, close } from "../request/close.ts";
import { ConnectionKeys } from "../request/connection-key.ts";
import type { Connections } from "../request/connections.ts";
import type { JournalEntry } from "../request/journal-entry.ts";
import { unwatchedSteps } from "../request/measured-steps.ts";
import type { RequestDeps } from "../request/received-request.ts";
import { request } from "../request/request.ts";
import { SegmentNames } from "../request/segment-names.ts";
import { takeDownInTurn } from "../request/teardown.ts";
import { HandClock, Manager, NETNS, PaperFd, type PaperFds, PaperVfs, paperGate, paperNoop, settled } from "./fakes.ts";
import { Outside } from "./fakes-outside.ts";
import { disagreements, leftovers } from "./ledger.ts";

/** How long an endpoint's socket outlives its last user. */
const LINGER_MS = 1_000;

interface Said {
  /** An earlier name of ours, where the call comes in under that. */
  readonly under?: string;
  readonly from?: Manager;
  readonly signal?: AbortSignal;
  readonly deadlineMs?: number;
  readonly tokenMs?: number;
}

const stories: Story[] = [];

/** More than a test has at once. */
const MOST_STORIES = 6;

/**
 * What no single test checks: every story is consistent when its test is over, and leaves nothing behind when it has ended. For
 * `afterEach` of each file: the files of a module share a process, in which this module is loaded for the first of them only.
 */
export async function endStories(): Promise<void> {
  for (const story of stories.splice(0)) await story.end();
}

/** The module at work, without sockets and without a node. */
export class Story {
  readonly clock: HandClock;
  readonly log = recordingLog();
  readonly outside = new Outside();
  readonly vfs = new PaperVfs();
  readonly manager: Manager;
  readonly journal = new PaperJournal();
  readonly sockets: EndpointSockets;
  /** Of each call so far. */
  readonly signals = new Set<AbortSignal>();
  /** Of each peer that called. */
  readonly callerFds = new Set<PaperFds>();
  /** Kinds of what was refused because a peer has its share. */
  readonly refused: string[] = [];
  readonly #listening = new AbortController();
  readonly deps: RequestDeps & CloseDeps;
  #currentManager: string;
  readonly #idPrefix: string;
  #ids = 0;

  constructor(clock = new HandClock(), idPrefix = "f", name = "fwd") {
    stories.push(this);
    assert.ok(
      stories.length <= MOST_STORIES,
      "stories of earlier tests continue: this file needs afterEach(endStories)",
    );
    PaperFd.open = 0;
    this.clock = clock;
    this.#idPrefix = idPrefix;
    this.manager = this.otherManager("nsmgr-a");
    this.sockets = new EndpointSockets(clock, LINGER_MS);
    this.#currentManager = this.manager.peer.spiffeId;
    const { log, outside: caller, journal, sockets } = this;
    const connections: Connections = new Map();
    const currentManager = () => this.#currentManager;
    const manager = {
      get spiffeId() {
        return currentManager();
      },
    };
    this.deps = {
      name,
      names: new SegmentNames({ own: name, connections, journal }),
      tokenLifetimeMs: 600_000,
      newId: () => `${idPrefix}${++this.#ids}`,
      clock,
      log,
      connections,
      quota: new ConnectionQuota(connections, { logs: { of: () => log }, clock }),
      journal,
      turns: new KeyedQueue<string>(),
      onRefused: (kind) => void this.refused.push(kind),
      steps: unwatchedSteps,
      monitor: new MonitorHub(),
      files: new FilesOfCalls(clock),
      ...paperGate(clock),
      manager,
      keys: new ConnectionKeys({ connections, journal, manager }),
      mechanisms: { KERNEL: this.vfs, NOOP: paperNoop },
      discovery: new Discovery({ target: "unix:///nsmgr", caller, sockets, clock }),
      requesting: { caller, clock, onCloseFailed: () => {} },
    };
  }

  get vf() {
    return this.vfs.vf;
  }

  get connections(): number {
    return this.deps.connections.size;
  }

  otherManager(name: string): Manager {
    const otherManager = new Manager(this.clock, name);
    otherManager.fds.sent.add(NETNS);
    this.callerFds.add(otherManager.fds);
    return otherManager;
  }

  /** The manager's pod was made again and we have registered with it. */
  newManager(name: string): Manager {
    const manager = this.otherManager(name);
    this.#currentManager = manager.peer.spiffeId;
    return manager;
  }

  async request(message: NetworkServiceRequest, said: Said = {}): Promise<Connection> {
    return await request(this.#deps(said), message, this.#call(said));
  }

  #deps({ under: name }: Said): RequestDeps & CloseDeps {
    return name === undefined ? this.deps : { ...this.deps, name, isEarlierName: true };
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
    await close(this.#deps(said), connection, this.#call(said));
  }

  #call(said: Said) {
    const call = (said.from ?? this.manager).call(said);
    this.signals.add(call.signal);
    return call;
  }

  /** Takes up what a previous instance kept; by then it may have given the VF to the client. */
  adopt(entry: JournalEntry): void {
    this.journal.kept.set(entry.connectionId, entry);
    this.vf.isAway = entry.mechanism === "KERNEL" || this.vf.isAway;
    adoptAfterRestart(this.deps, entry);
  }

  /** The process dies; the next one finds its journal, its peers and the time of day. Where endpoints are now it cannot know. */
  successor(name = this.deps.name): Story {
    stories.splice(stories.indexOf(this), 1);
    const next = new Story(new HandClock(this.clock.now()), `${this.#idPrefix}f`, name);
    Object.assign(next.outside, { services: this.outside.services, endpoints: this.outside.endpoints });
    for (const url of this.outside.fds.sent) next.outside.fds.sent.add(url);
    for (const [target, reply] of this.outside.replies) next.outside.replies.set(target, reply);
    next.#currentManager = this.#currentManager;
    for (const entry of this.journal.kept.values()) next.adopt(entry);
    return next;
  }

  /** Ends every connection where nothing resists any more. Nothing may be left of it then. */
  async end(): Promise<void> {
    await settled();
    assert.deepEqual(await disagreements(this), [], "when the test was over");
    this.vf.failing.clear();
    this.outside.closeFailure = undefined;
    for (const record of [...this.deps.connections.values()]) {
      await takeDownInTurn(this.deps, record, { reason: "pod-gone" });
    }
    this.#listening.abort();
    await this.clock.pass(LINGER_MS + 1);
    assert.deepEqual(await leftovers(this), [], "when everything had ended");
  }

  /** What a subscriber of the manager hears from now on; of paths with these segments, if any. */
  listen(from = this.manager, pathSegments: readonly PathSegment[] = []): ConnectionEvent[] {
    const heard: ConnectionEvent[] = [];
    const events = this.deps.monitor.subscribe({
      selector: { $typeName: "connection.MonitorScopeSelector", pathSegments: [...pathSegments], networkServices: [] },
      sees: (owner) => owner.spiffeId === from.peer.spiffeId,
      signal: this.#listening.signal,
    });
    void (async () => {
      for await (const event of events) heard.push(event);
    })();
    return heard;
  }
}

export class PaperJournal {
  readonly puts: JournalEntry[] = [];
  readonly drops: string[] = [];
  /** What a next process would find. */
  readonly kept = new Map<string, JournalEntry>();
  /** What is not written, for the disk is full. */
  readonly failing = new Set<JournalEntry["stage"] | "drop">();
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
    if (this.failing.has(entry.stage)) throw new Error("the disk is full");
    this.kept.set(entry.connectionId, entry);
  }

  async drop(connectionId: string): Promise<void> {
    this.drops.push(connectionId);
    this.kept.delete(connectionId);
    if (this.failing.has("drop")) throw new Error("the disk is full");
  }
}
