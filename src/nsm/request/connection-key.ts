import { type ActingPeer, isSameActing, type ManagerSource, mayAct, ownerFor } from "../permission/connection-owner.ts";
import type { Connections } from "./connections.ts";
import type { ConnectionJournal } from "./journal-entry.ts";

/** A call on its way to a connection. */
interface EnteredCall {
  /** What the connection is known by here; also where there is none yet. */
  readonly key: string;
  /** The call is over: where nothing was established, the key is free. */
  leave(): void;
}

interface Reserved {
  readonly acting: ActingPeer;
  readonly id: string;
}

interface KeysInput {
  readonly connections: Connections;
  readonly journal: ConnectionJournal;
  readonly manager: ManagerSource;
}

/**
 * By what connections are known here, on disk and in the log: the id on the path, which its caller chooses; and where a connection of
 * another owner has that already, the id with a number. So a peer that takes an id first locks no other owner out; behind the manager
 * each client is one.
 */
export class ConnectionKeys {
  readonly #input: KeysInput;
  /** Calls under way, by key. */
  readonly #reserved = new Map<string, Set<Reserved>>();

  constructor(input: KeysInput) {
    this.#input = input;
  }

  /**
   * Two calls of one peer for one id, and one client, have one key. Where they are the first of their id, it is that of the client's
   * `earlier` path if there is one: they are one connection's, and so their calls have one queue. It is looked for last.
   */
  enter(acting: ActingPeer, id: string, earlier?: () => string | undefined): EnteredCall {
    const known = this.#established(acting, id) ?? this.#underWay(acting, id) ?? this.#left(acting, id);
    const key = known ?? earlier?.() ?? this.#free(id);
    const call = { acting, id };
    const calls = this.#reserved.get(key) ?? new Set();
    this.#reserved.set(key, calls.add(call));
    return {
      key,
      leave: () => {
        calls.delete(call);
        if (calls.size === 0) this.#reserved.delete(key);
      },
    };
  }

  /** Whether any owner has a connection of this id. */
  isKnown(id: string): boolean {
    return [...this.#input.connections.values()].some((record) => record.state.connection.id === id);
  }

  /** The one that the peer made itself before one that its predecessor as the manager made. */
  #established(acting: ActingPeer, id: string): string | undefined {
    const { connections, manager } = this.#input;
    const mine = [...connections.values()].filter(
      ({ state, owner }) => state.connection.id === id && mayAct(acting, owner, manager),
    );
    return (mine.find(({ owner }) => isSameActing(owner, acting)) ?? mine[0])?.id;
  }

  #underWay(acting: ActingPeer, id: string): string | undefined {
    const { manager } = this.#input;
    const isOfSame = (one: Reserved) =>
      one.id === id &&
      one.acting.spiffeId === acting.spiffeId &&
      mayAct(acting, ownerFor(one.acting, manager), manager);
    return [...this.#reserved].find(([, calls]) => [...calls].some(isOfSame))?.[0];
  }

  /** Of a previous instance, and not continued yet: its virtual function has not come. */
  #left(acting: ActingPeer, id: string): string | undefined {
    const { journal, manager } = this.#input;
    for (const { connectionId, owner, id: given = connectionId } of journal.left?.values() ?? []) {
      if (given === id && mayAct(acting, owner, manager)) return connectionId;
    }
    return undefined;
  }

  #free(id: string): string {
    const { connections, journal } = this.#input;
    const isTaken = (key: string) => connections.has(key) || this.#reserved.has(key) || journal.left?.has(key);
    let key = id;
    for (let nth = 2; isTaken(key); nth++) key = `${id} (${nth})`;
    return key;
  }
}
