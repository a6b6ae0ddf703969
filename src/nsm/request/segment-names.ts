import { fromBinary } from "@bufbuild/protobuf";
import { Latest } from "../../async/index.ts";
import { type Connection, ConnectionSchema, type PathSegment } from "../../gen/connection_pb.ts";
import { nextSegment } from "../path.ts";
import { accountableName } from "../permission/connection-owner.ts";
import type { Connections } from "./connections.ts";
import type { ConnectionJournal, JournalEntry } from "./journal-entry.ts";

interface SegmentNamesInput {
  /** Our name of today. */
  readonly own: string;
  readonly connections: Connections;
  readonly journal: ConnectionJournal;
}

/** How one connection counts for an earlier name. */
interface UnderName {
  readonly name: string;
  readonly client: string;
  readonly holdsVf: boolean;
}

/** How many connections of each client stand under a name. */
interface ClientsOfName {
  readonly withVf: Map<string, number>;
  readonly all: Map<string, number>;
}

/**
 * Under which names of ours connections stand: an instance has the name of its pod, and its connections outlive it. The manager
 * remembers of each connection by which name it found us, and that is the name of its segment: docs/decisions/052.
 */
export class SegmentNames {
  /** Earlier names that connections stand under: those first under which most clients have a VF, then those of most clients. */
  readonly earlier = new Latest<readonly string[]>([]);
  /** Our name of today. */
  readonly own: string;
  readonly #input: SegmentNamesInput;
  /** Those by which the registry leads to us, as far as we know. */
  readonly #registered = new Set<string>();
  readonly #left = new WeakMap<JournalEntry, PathSegment | undefined>();
  /** What stands under earlier names, by the connection's key: on a node that was never upgraded it is nothing. */
  readonly #under = new Map<string, readonly UnderName[]>();
  readonly #clients = new Map<string, ClientsOfName>();

  constructor(input: SegmentNamesInput) {
    this.#input = input;
    this.own = input.own;
    // For as long as the journal: what is not continued ends there.
    input.journal.onLeftDropped?.((key) => this.changed(key));
    for (const key of new Set([...input.connections.keys(), ...(input.journal.left?.keys() ?? [])])) this.#recount(key);
    this.#order();
  }

  /** By its id; its name is one that it stands under, or that we are called by. */
  isOurs({ name, id }: PathSegment): boolean {
    return this.#hasSegment((own) => own.id === id && (own.name === name || this.#isCalled(name)));
  }

  /** Whether a connection of ours has this id, under whichever name. */
  isKnown(id: string): boolean {
    return this.#hasSegment((own) => own.id === id);
  }

  /** Whether a connection of this id stands under this name. */
  isUnder(name: string, id: string): boolean {
    return this.#hasSegment((own) => own.id === id && own.name === name);
  }

  /**
   * Whether the manager knows this connection by another name of ours than this one, and finds us by it. A Close that comes all the same
   * is not the client's: the manager sends it to where a socket of ours was, before the Request (sdk: common/dial/client.go).
   */
  isKnownByOther(name: string, connection: Connection): boolean {
    const next = nextSegment(connection);
    return next !== undefined && next.name !== name && this.#isCalled(next.name) && this.isOurs(next);
  }

  /** The registry may lead to us by an earlier name now, or no longer. */
  setRegistered(name: string, isRegistered: boolean): void {
    if (isRegistered) this.#registered.add(name);
    else this.#registered.delete(name);
  }

  /** The connection of this key has begun, moved or ended. */
  changed(key: string): void {
    if (this.#recount(key)) this.#order();
  }

  /** False where nothing has changed. */
  #recount(key: string): boolean {
    const before = this.#under.get(key) ?? [];
    const now = this.#underNames(key);
    if (before.length === 0 && now.length === 0) return false;
    // The new before the old: a name that stays keeps its place among its equals.
    for (const one of now) this.#count(one, 1);
    for (const one of before) this.#count(one, -1);
    if (now.length > 0) this.#under.set(key, now);
    else this.#under.delete(key);
    return true;
  }

  #count({ name, client, holdsVf }: UnderName, by: 1 | -1): void {
    const ofName = this.#clients.get(name) ?? { withVf: new Map(), all: new Map() };
    this.#clients.set(name, ofName);
    add(ofName.all, client, by);
    if (holdsVf) add(ofName.withVf, client, by);
    if (ofName.all.size === 0) this.#clients.delete(name);
  }

  #order(): void {
    // One that has many connections, or many without a VF, pushes no other's name out.
    const order = (a: ClientsOfName, b: ClientsOfName) => b.withVf.size - a.withVf.size || b.all.size - a.all.size;
    const names = [...this.#clients].sort(([, a], [, b]) => order(a, b)).map(([name]) => name);
    if (names.join("\n") !== this.earlier.value?.join("\n")) this.earlier.set(names);
  }

  #isCalled(name: string): boolean {
    return name === this.own || this.#registered.has(name);
  }

  /** As it is, and as a previous instance left it, whose VF has not come yet. */
  #underNames(key: string): readonly UnderName[] {
    const { connections, journal } = this.#input;
    const [record, entry] = [connections.get(key), journal.left?.get(key)];
    const own = record && segmentOf(record.state.connection);
    const left = entry && this.#leftSegment(entry);
    return [
      ...(record && own ? [{ name: own.name, client: accountableName(record.owner), holdsVf: record.holdsVf }] : []),
      ...(entry && left
        ? [{ name: left.name, client: accountableName(entry.owner), holdsVf: entry.mechanism !== "NOOP" }]
        : []),
    ].filter(({ name }) => name !== this.own);
  }

  #hasSegment(isIt: (segment: PathSegment) => boolean): boolean {
    const { connections, journal } = this.#input;
    for (const { state } of connections.values()) {
      const segment = segmentOf(state.connection);
      if (segment && isIt(segment)) return true;
    }
    for (const entry of journal.left?.values() ?? []) {
      const segment = this.#leftSegment(entry);
      if (segment && isIt(segment)) return true;
    }
    return false;
  }

  #leftSegment(entry: JournalEntry): PathSegment | undefined {
    if (!this.#left.has(entry)) this.#left.set(entry, readSegment(entry));
    return this.#left.get(entry);
  }
}

/** What cannot be read is no segment of ours; who continues the entry says what is wrong with it. */
function readSegment({ connection }: JournalEntry): PathSegment | undefined {
  try {
    return connection && segmentOf(fromBinary(ConnectionSchema, connection));
  } catch {
    return undefined;
  }
}

/** Of a connection at our own index. */
function segmentOf({ path }: Connection): PathSegment | undefined {
  return path?.pathSegments[path.index];
}

function add(counts: Map<string, number>, key: string, by: 1 | -1): void {
  const count = (counts.get(key) ?? 0) + by;
  if (count > 0) counts.set(key, count);
  else counts.delete(key);
}
