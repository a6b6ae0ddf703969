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

/** Of one connection. */
interface OneSegment {
  /** Ours on its path. */
  readonly segment: PathSegment;
  readonly client: string;
  readonly holdsVf: boolean;
}

interface ClientsOfName {
  readonly withVf: Set<string>;
  readonly all: Set<string>;
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

  constructor(input: SegmentNamesInput) {
    this.#input = input;
    this.own = input.own;
    // For as long as the journal: what is not continued ends there.
    input.journal.onLeftDropped?.(() => this.changed());
    this.changed();
  }

  /** By its id; its name is one that it stands under, or that we are called by. */
  isOurs({ name, id }: PathSegment): boolean {
    return this.#all().some(({ segment: own }) => own.id === id && (own.name === name || this.#isCalled(name)));
  }

  /** Whether a connection of ours has this id, under whichever name. */
  isKnown(id: string): boolean {
    return this.#all().some(({ segment }) => segment.id === id);
  }

  /** Whether a connection of this id stands under this name. */
  isUnder(name: string, id: string): boolean {
    return this.#all().some(({ segment: own }) => own.id === id && own.name === name);
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

  /** A connection has begun, moved or ended. */
  changed(): void {
    const clients = new Map<string, ClientsOfName>();
    for (const { segment, client, holdsVf } of this.#all()) {
      if (segment.name === this.own) continue;
      const ofName = clients.get(segment.name) ?? { withVf: new Set(), all: new Set() };
      clients.set(segment.name, ofName);
      ofName.all.add(client);
      if (holdsVf) ofName.withVf.add(client);
    }
    // One that has many connections, or many without a VF, pushes no other's name out.
    const order = (a: ClientsOfName, b: ClientsOfName) => b.withVf.size - a.withVf.size || b.all.size - a.all.size;
    const names = [...clients].sort(([, a], [, b]) => order(a, b)).map(([name]) => name);
    if (names.join("\n") !== this.earlier.value?.join("\n")) this.earlier.set(names);
  }

  #isCalled(name: string): boolean {
    return name === this.own || this.#registered.has(name);
  }

  #all(): readonly OneSegment[] {
    const { connections, journal } = this.#input;
    const own = [...connections.values()].map(({ state, owner, holdsVf }) => {
      return { segment: segmentOf(state.connection), client: accountableName(owner), holdsVf };
    });
    // A previous instance's, whose VFs have not come yet.
    const left = [...(journal.left?.values() ?? [])].map((entry) => {
      const { owner, mechanism } = entry;
      return { segment: this.#leftSegment(entry), client: accountableName(owner), holdsVf: mechanism !== "NOOP" };
    });
    return [...own, ...left].filter((one) => one.segment !== undefined) as readonly OneSegment[];
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
