// Who a previous instance was: where the agent issues several SVIDs, and sorts them another way each time, a restart makes no other workload of us.
import { messageOf, type UndoStack } from "../async/index.ts";
import { Identity } from "../identity/index.ts";
import type { StateFolder } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";

const FILE = "spiffe-id";
/** SPIFFE's own limit; longer texts were not written by a forwarder. */
const LONGEST = 2048;

/** Follows the agent, and is who the previous instance was where that is issued. */
export async function openIdentity(
  state: Pick<StateFolder, "read" | "replace">,
  options: Omit<ConstructorParameters<typeof Identity>[0], "last">,
  undo: UndoStack,
): Promise<Identity> {
  const last = await lastSpiffeId(state, options.log);
  const identity = new Identity({ ...options, last });
  undo.push("identity", () => identity.close());
  undo.push("own SPIFFE ID", keepSpiffeId({ state, last, current: identity.current, log: options.log }));
  return identity;
}

/** Undefined where none is kept, or none that can be read: the first in the agent's answer is taken then. */
export async function lastSpiffeId(state: Pick<StateFolder, "read">, log: Log): Promise<string | undefined> {
  const text = await state.read(FILE).catch((error: unknown) => {
    log.warn("spiffe-id-not-read", { error: messageOf(error) });
    return undefined;
  });
  const id = text?.trim();
  return id && id.length <= LONGEST ? id : undefined;
}

interface KeepOptions {
  readonly state: Pick<StateFolder, "replace">;
  /** What is kept already. */
  readonly last: string | undefined;
  readonly current: { readonly value: { readonly id: string } | undefined; onChange(listener: () => void): () => void };
  readonly log: Log;
}

/**
 * Keeps the SPIFFE ID that we have, and each that follows. What cannot be written costs nothing now, and is tried again with the next SVID.
 * Returns how to stop.
 */
export function keepSpiffeId({ state, last, current, log }: KeepOptions): () => Promise<void> {
  let kept = last;
  let writing = Promise.resolve();
  const write = async (id: string) => {
    try {
      await state.replace(FILE, `${id}\n`);
    } catch (error) {
      if (kept === id) kept = undefined;
      log.warn("spiffe-id-not-kept", { spiffeId: id, error: messageOf(error) });
    }
  };
  const keep = () => {
    const id = current.value?.id;
    if (id === undefined || id === kept) return;
    kept = id;
    writing = writing.then(() => write(id));
  };
  const stop = current.onChange(keep);
  keep();
  return async () => {
    stop();
    await writing;
  };
}
