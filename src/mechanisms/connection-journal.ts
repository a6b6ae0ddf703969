// What is kept on disk of connections and of the VFs that are out with them: docs/decisions/013.
import { type Clock, messageOf } from "../async/index.ts";
import { type Journal, openJournal } from "../journal/index.ts";
import type { StateFolder } from "../kernel/index.ts";
import type { ConnectionJournal, JournalEntry, Quota } from "../nsm/index.ts";
import type { PciAddress } from "../pci/index.ts";
import type { Health, Log } from "../telemetry/index.ts";
import { readConnection, type StoredEntry, storedConnection, type VfEntry } from "./journal-entries.ts";
import { CONNECTION, journalSelection, type LeftOut } from "./journal-selection.ts";
import { KeptVfs } from "./kept-vfs.ts";
import { UnrestoredVfs } from "./unrestored-vfs.ts";

/** Where the mechanisms keep their part. */
export interface VfJournal {
  /** What it has now; at first as the previous instance left it. */
  readonly vfs: ReadonlyMap<PciAddress, VfEntry>;
  /** Resolves when it is on disk. @throws {JournalError} */
  keepVf(entry: VfEntry): Promise<void>;
  /** The VF is restored and clean. Written before anything that comes later; what fails is reported, and made up for. */
  forgetVf(address: PciAddress): void;
  /** VFs that are not as the host had them, whether they are out or not. */
  readonly unrestored: UnrestoredVfs;
}

/** The journal of one node. */
export interface NodeJournal extends ConnectionJournal, VfJournal {
  /** Connections as the previous instance left them, by id, until they are written again or dropped. */
  readonly left: ReadonlyMap<string, JournalEntry>;
  /** Waits for what is being written. */
  close(): Promise<void>;
}

/** Between two checks whether the file is still there; each write checks, too. */
const CHECK_MS = 5_000;

interface NodeJournalOptions {
  /** What owners may have. */
  readonly quota?: Quota;
  readonly state: StateFolder;
  readonly health: Health;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Opens the journal in the state folder. What is damaged is reported once.
 * @throws {JournalError} newer-version; the file system's error when it cannot be read.
 */
export async function openNodeJournal(options: NodeJournalOptions): Promise<NodeJournal> {
  const { journal, entries } = await openFile(options);
  const stopChecks = checkAgain(journal, options.clock);
  const kept = new KeptVfs(journal, entries);
  const left = new Map<string, JournalEntry>();
  for (const [key, stored] of entries) {
    const connection = key.startsWith(CONNECTION) ? readConnection(stored) : undefined;
    if (connection) left.set(connection.connectionId, connection);
  }
  const listeners: ((connectionId: string) => void)[] = [];
  return {
    left,
    onLeftDropped: (listener) => void listeners.push(listener),
    vfs: kept.vfs,
    unrestored: new UnrestoredVfs(journal, entries, options),
    put(entry) {
      left.delete(entry.connectionId);
      return journal.put(`${CONNECTION}${entry.connectionId}`, storedConnection(entry));
    },
    drop(connectionId) {
      if (left.delete(connectionId)) for (const listener of listeners) listener(connectionId);
      return journal.drop(`${CONNECTION}${connectionId}`);
    },
    keepVf: (entry) => kept.keep(entry),
    forgetVf(address) {
      // The journal makes up for it; who reads the log sees of which VF the file says too much until then.
      const failed = (error: unknown) => options.log.warn("vf-not-forgotten", { vf: address, error: messageOf(error) });
      void kept.forget(address).catch(failed);
    },
    async close() {
      stopChecks();
      await journal.close();
    },
  };
}

async function openFile({ state, quota, health, clock, log }: NodeJournalOptions) {
  const trouble = health.condition("journal-not-written");
  const { path: folder } = state;
  const leftOut: LeftOut = { count: 0, bytes: 0, first: undefined };
  const { journal, found } = await openJournal<StoredEntry>({
    file: await state.openAppend("journal"),
    clock,
    selection: journalSelection(leftOut, quota),
    onTrouble(problem) {
      if (problem === undefined) return trouble.clear();
      log.error("journal-not-written", { folder, error: problem });
      trouble.raise(`New connections are refused: the journal in ${folder} cannot be written: ${problem}`);
    },
  });
  const { entries, damagedBytes } = found;
  if (damagedBytes > 0) log.error("journal-damaged", { folder, damagedBytes, entries: entries.size });
  if (leftOut.count > 0) log.error("journal-over-quota", { folder, ...leftOut });
  return { journal, entries };
}

/** Returns how to stop. */
function checkAgain(journal: Journal<StoredEntry>, clock: Clock): () => void {
  let checking = clock.after(CHECK_MS, check);
  function check(): void {
    void journal.check();
    checking = clock.after(CHECK_MS, check);
  }
  return () => checking.cancel();
}
