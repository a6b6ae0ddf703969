// What must agree in a forwarder where nothing is under way, and what is left of one whose connections have ended: for this
// module's tests only. Each line is something that a person, a peer or a later process would meet.
import { getEventListeners } from "node:events";
import { isDeepStrictEqual } from "node:util";
import { equals, fromBinary } from "@bufbuild/protobuf";
import { type Connection, ConnectionSchema } from "../../gen/connection_pb.ts";
import type { EndpointSockets } from "../endpoint/endpoint-sockets.ts";
import type { Onward } from "../endpoint/try-candidates.ts";
import type { MonitorHub } from "../monitor/monitor.ts";
import { withoutTokens } from "../path.ts";
import { isSameActing, type Owner } from "../permission/connection-owner.ts";
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
  const owners = (id: string) => shown.filter((one) => one.id === id).map(({ owner }) => owner.spiffeId);
  const wrong = [...leftByCalls(holdings), ...records.flatMap((record) => wrongWith(record, holdings))];
  const established = records.filter(({ state }) => state.phase === "established");
  const say = (isSo: boolean, what: string) => isSo && wrong.push(what);
  say(
    clock.timerCount > records.length + sockets.heldCount,
    `${clock.timerCount} timers for ${records.length} records`,
  );
  const ids = (all: Iterable<string>) => [...all].sort().join();
  const seen = ids(shown.map(({ id }) => id));
  say(seen !== ids(established.map(({ state }) => state.connection.id)), `watchers are shown ${seen}`);
  for (const { id, owner, state } of established) {
    const seenBy = owners(state.connection.id);
    say(!seenBy.includes(owner.spiffeId), `${id} is shown to ${seenBy}, it is ${owner.spiffeId}'s`);
  }
  for (const id of holdings.journal.kept.keys()) say(!deps.connections.has(id), `the journal keeps ${id}`);
  say(vfs.holder !== undefined && !deps.connections.has(vfs.holder), `${vfs.holder} holds the VF and is no connection`);
  const known = records.map(onwardOf).filter((onward) => onward !== undefined);
  const served = new Set(known.map((onward) => servedAt(onward.candidate, onward.connection)));
  const sought = records.filter(({ state }) => state.onward === "unknown").map(({ id }) => `${id} at `);
  for (const agreed of outside.agreed.keys()) {
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
    "connections shown to watchers": (await shownBy(deps.monitor)).length,
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
  const hasTokens = read(entry).path?.pathSegments.some(({ token, expires }) => token !== "" || expires);
  say(hasTokens === true, "has its tokens on disk");
  say(entry?.stage !== "ready", `is established and is ${entry?.stage} in the journal`);
  say(!isDeepStrictEqual(entry?.owner, owner), "has another owner there");
  say(!equals(ConnectionSchema, content(connection), content(read(entry))), "is not in the journal as it was answered");
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
function content(connection: Connection): Connection {
  const copy = withoutTokens(connection, "and their times");
  for (const segment of copy.path?.pathSegments ?? []) segment.metrics = {};
  return copy;
}

/** What watchers are shown at once: ids, with whose each is. Two owners can have one id. */
async function shownBy(monitor: MonitorHub): Promise<readonly { readonly id: string; readonly owner: Owner }[]> {
  const owners: Owner[] = [];
  await shownTo(monitor, (owner) => owners.push(owner) > 0);
  const shown = owners.map(async (owner, index) => {
    if (owners.findIndex((other) => isSameActing(other, owner)) !== index) return [];
    const ids = await shownTo(monitor, (other) => isSameActing(other, owner));
    return ids.map((id) => ({ id, owner }));
  });
  return (await Promise.all(shown)).flat();
}

async function shownTo(monitor: MonitorHub, sees: (owner: Owner) => boolean): Promise<readonly string[]> {
  const events = monitor.subscribe({
    selector: { $typeName: "connection.MonitorScopeSelector", pathSegments: [], networkServices: [] },
    sees,
    signal: new AbortController().signal,
  });
  for await (const { connections } of events) return Object.keys(connections);
  return [];
}
