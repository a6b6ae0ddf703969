import { randomBytes, randomUUID } from "node:crypto";

/** What cannot be guessed, so that a simulation can hand in a seeded sequence. */
export interface Random {
  /** A UUID of version 4, RFC 9562. */
  uuid(): string;
  bytes(count: number): Buffer;
  /** A number in [0, 1); spreads retries and is no secret. */
  fraction(): number;
}

/** The randomness of this machine: getrandom(2) for all but `fraction`. */
export const systemRandom: Random = {
  uuid: () => randomUUID(),
  bytes: (count) => randomBytes(count),
  fraction: () => Math.random(),
};
