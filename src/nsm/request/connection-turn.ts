import type { KeyedQueue } from "../../async/index.ts";
import { NsmError, type RefusalKind } from "../fault.ts";

/** Calls that wait for their turn on one connection. They are decoded, and the one before them may take a minute. */
const MOST_WAITING = {
  Request: { ofAnySize: 8, small: 64 },
  /** Where Requests have no room left a Close has: it makes room. */
  Close: { ofAnySize: 16, small: 128 },
} as const;

/** A refresh has some 3 KiB: its context, and a token for each segment of its path. */
const SMALL_BYTES = 16 * 1024;

/** What a call needs that waits for its turn. */
export interface TurnDeps {
  readonly turns: KeyedQueue<string>;
  /** Something was refused to a peer because it has its share. */
  readonly onRefused: (kind: RefusalKind) => void;
}

interface Comer {
  readonly method: keyof typeof MOST_WAITING;
  /** Of the connection, as its caller says it. */
  readonly id: string;
  /** Of its message, encoded. */
  readonly sizeBytes: () => number;
}

/** @throws {NsmError} too-many-waiting. */
export function checkWaiting({ turns, onRefused }: TurnDeps, key: string, { method, id, sizeBytes }: Comer): void {
  const waiting = turns.waitingFor(key);
  const { ofAnySize, small } = MOST_WAITING[method];
  if (waiting < ofAnySize || (waiting < small && sizeBytes() <= SMALL_BYTES)) return;
  onRefused("waiting-calls");
  throw new NsmError({ kind: "too-many-waiting", id, waiting });
}
