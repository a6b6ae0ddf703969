// What must agree in a forwarder where nothing is under way, and what is left of one whose connections have ended: for this
// module's tests only. Each line is something that a person, a peer or a later process would meet.
import { getEventListeners } from "node:events";
import { fromBinary, toJsonString } from "@bufbuild/protobuf";
import { type Connection, ConnectionSchema } from "../../gen/connection_pb.ts";
import type { EndpointSockets } from "../endpoint/endpoint-sockets.ts";
import type { Onward } from "../endpoint/try-candidates.ts";
import type { MonitorHub } from "../monitor/monitor.ts";
import { withoutTokens } from "../path.ts";
import type { Owner } from "../permission/connection-owner.ts";
import { sizeOf } from "../permission/quota.ts";
import { type ConnectionRecord, type Connections, onwardOf } from "../request/connections.ts";
import type { JournalEntry } from "../request/journal-entry.ts";
import type { HandClock, PaperFds, PaperVfs } from "./fakes.ts";
import { type Outside, whoServes } from "./fakes-outside.ts";

/** Everything that a story can take something of. */
interface Holdings {
  readonly clock: HandClock;
  readonly outside: Outside;
  readonly vfs: PaperVfs;
  readonly journal: { readonly kept: ReadonlyMap<string, JournalEntry> };
  readonly sockets: EndpointSockets;
  /** Of the calls so far. */
  readonly signals: ReadonlySet<AbortSignal>;
  /** Of the peers that have called. */
  readonly callerFds: ReadonlySet<PaperFds>;
  readonly deps: {
    readonly connections: Connections;
    readonly monitor: MonitorHub;
    readonly turns: { readonly busyKeys: number };
  };
}

/** What does not fit together although no call is under way: memory, journal, watchers, endpoints and node say the same. */
export async function disagreements(holdings: Holdings): Promise<readonly string[]> {
  const { clock, deps, sockets, outside, vfs } = holdings;
  const records = [...deps.connections.values()];
  const shown = await shownBy(deps.monitor);
  const wrong = [...leftByCalls(holdings), ...records.flatMap((record) => wrongWith(record, holdings))];
  const established = records.filter(({ state }) => state.phase === "established");
  const say = (isSo: boolean, what: string) => isSo && wrong.push(what);
  say(
    clock.timerCount > records.length + sockets.heldCount,
    `${clock.timerCount} timers for ${records.length} records`,
  );
  const ids = (all: Iterable<string>) => [...all].sort().join();
  say(ids(shown.keys()) !== ids(established.map(({ id }) => id)), `watchers are shown ${ids(shown.keys())}`);
  for (const { id, owner } of established) {
    const seen = shown.get(id);
    say(seen?.spiffeId !== owner.spiffeId, `${id} is shown to ${seen?.spiffeId}, it is ${owner.spiffeId}'s`);
  }
  for (const id of holdings.journal.kept.keys()) say(!deps.connections.has(id), `the journal keeps ${id}`);
  say(vfs.holder !== undefined && !deps.connections.has(vfs.holder), `${vfs.holder} holds the VF and is no connection`);
  const known = records.map(onwardOf).filter((onward) => onward !== undefined);
  const served = new Set(known.map((onward) => servedAt(onward.candidate, onward.connection)));
  const sought = records.filter(({ state }) => state.onward === "unknown").map(({ id }) => `${id} at `);
  for (const agreed of outside.agreed) {
    const isKnown = served.has(agreed) || sought.some((begin) => agreed.startsWith(begin));
    say(!isKnown, `the end of ${agreed} was not published`);
  }
  const watches = outside.watches.filter(({ isOver }) => !isOver).length;
  const watched = records.filter(({ watch }) => watch?.isAlive).length;
  say(watches !== watched, `${watches} endpoints are listened to for ${watched} connections`);
  return wrong;
}

/** What is still taken although no connection is left and time enough has passed. */
export async function leftovers(holdings: Holdings): Promise<readonly string[]> {
  const { clock, deps, sockets, outside, vfs, journal } = holdings;
  const left: Record<string, number> = {
    connections: deps.connections.size,
    timers: clock.timerCount,
    "sockets of endpoints": sockets.heldCount,
    "connections shown to watchers": (await shownBy(deps.monitor)).size,
    watchers: deps.monitor.subscriberCount,
    "entries in the journal": journal.kept.size,
    "endpoints that are listened to": outside.watches.filter(({ isOver }) => !isOver).length,
    "connections at endpoints": outside.agreed.size,
    "open descriptors": [outside.fds, ...holdings.callerFds].flatMap(({ received }) =>
      received.filter((fd) => fd.isOpen),
    ).length,
    "VFs that are reserved": vfs.holder === undefined ? 0 : 1,
    "VFs that are away": vfs.vf.isAway ? 1 : 0,
  };
  const named = Object.entries(left).filter(([, count]) => count > 0);
  return [...named.map(([what, count]) => `${count} ${what}`), ...leftByCalls(holdings)];
}

/** A call that is over holds nothing of its caller's, and nothing of what came with it. */
function leftByCalls({ signals, callerFds, outside, deps }: Holdings): string[] {
  const left: string[] = [];
  for (const signal of signals) {
    if (getEventListeners(signal, "abort").length > 0) left.push("a listener on the signal of a call that is over");
  }
  for (const { kept } of [outside.fds, ...callerFds]) for (const url of kept) left.push(`a peer's own copy of ${url}`);
  if (deps.turns.busyKeys > 0) left.push(`the turns of ${deps.turns.busyKeys} connections`);
  return left;
}

function wrongWith(record: ConnectionRecord, { clock, journal, vfs }: Holdings): string[] {
  const { id, owner, expiry, state } = record;
  const { phase, connection, desired, attachment } = state;
  const onward = onwardOf(record);
  const wrong: string[] = [];
  const say = (isSo: boolean, what: string) => isSo && wrong.push(`${id} ${what}`);
  say(phase === "opening", "is for ever opening");
  say(expiry.dueMs === undefined || expiry.dueMs < clock.now(), "has no end");
  const entry = journal.kept.get(id);
  say(!!attachment && !entry?.connection, "could not be taken up by a later process");
  say(vfs.holder === id && entry?.mechanism !== "KERNEL", `has a VF, in the journal it is for ${entry?.mechanism}`);
  if (phase !== "established") return wrong;
  say(entry?.stage !== "ready", `is established and is ${entry?.stage} in the journal`);
  say(entry?.owner.spiffeId !== owner.spiffeId || entry.owner.isManager !== owner.isManager, "has another owner there");
  say(textOf(connection) !== textOf(read(entry)), "is not in the journal as it was answered");
  say(record.client === undefined, "has no client");
  say(record.bytes < sizeOfAnswer(record), `counts as ${record.bytes} bytes`);
  say(record.holdsVf !== (desired.type !== "NOOP"), "counts for the wrong share");
  say(desired.type === "KERNEL" && vfs.holder !== id, "has no VF");
  say(state.onward === undefined, "is served by no endpoint");
  const watched = record.watch?.target;
  // A refresh that moved on and failed later has left the former endpoint; the next one watches.
  const isElsewhere = watched !== undefined && watched !== onward?.candidate.socket.target;
  say(onward !== undefined && isElsewhere, `is watched at ${watched}`);
  return wrong;
}

function sizeOfAnswer(record: ConnectionRecord): number {
  const kept = onwardOf(record)?.connection ?? record.state.connection;
  // Context and path that an endpoint has changed since count with the event, and may be less.
  return Math.min(sizeOf(kept), 1_024);
}

function servedAt({ name, socket }: Onward["candidate"], connection: Connection): string {
  return whoServes(socket.target, { ...connection, networkServiceEndpointName: name });
}

function read(entry: JournalEntry | undefined): Connection {
  return fromBinary(ConnectionSchema, entry?.connection ?? new Uint8Array());
}

/** Apart from what changes with each refresh. */
function textOf(connection: Connection): string {
  const copy = withoutTokens(connection, "and their times");
  for (const segment of copy.path?.pathSegments ?? []) segment.metrics = {};
  return toJsonString(ConnectionSchema, copy);
}

/** What the manager, which may see everything, is shown at once: ids, with whose each is. */
async function shownBy(monitor: MonitorHub): Promise<ReadonlyMap<string, Owner>> {
  const owners: Owner[] = [];
  const events = monitor.subscribe({
    selector: { $typeName: "connection.MonitorScopeSelector", pathSegments: [], networkServices: [] },
    sees: (owner) => owners.push(owner) > 0,
    signal: new AbortController().signal,
  });
  for await (const { connections } of events) {
    return new Map(Object.keys(connections).map((id, index) => [id, owners[index] as Owner]));
  }
  return new Map();
}
