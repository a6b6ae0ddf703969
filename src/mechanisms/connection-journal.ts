// What is kept on disk of connections and of the VFs that are out with them: docs/decisions/013.
import type { GrantState } from "../access/index.ts";
import type { Clock } from "../async/index.ts";
import { type Journal, type Json, openJournal } from "../journal/index.ts";
import type { StateFolder } from "../kernel/index.ts";
import type { AttachmentState, VfSettings } from "../netdev/index.ts";
import type { ConnectionJournal, JournalEntry } from "../nsm/index.ts";
import type { PciAddress } from "../pci/index.ts";
import type { Health, Log } from "../telemetry/index.ts";
import { CONNECTION, journalSelection, type LeftOut, VF } from "./journal-selection.ts";

/** A VF that has been touched for a connection, and how to restore it. On disk without `use`: version 1 has it so. */
export interface KernelVfEntry {
  readonly use: "kernel";
  readonly address: PciAddress;
  readonly connectionId: string;
  readonly tokenId: string;
  /** The client's namespace, "4:4026532441": by device and inode, as long as it lives. */
  readonly netns: string;
  readonly state: AttachmentState;
}

/** A VF that a pod may open by VFIO, and how to revoke that. */
export interface VfioVfEntry {
  readonly use: "vfio";
  readonly address: PciAddress;
  readonly connectionId: string;
  readonly tokenId: string;
  /** The pod, as the inventory knows it; undefined where kubelet's records were silent. */
  readonly owner: string | undefined;
  /** What the pod may open; undefined before anything was to be written. */
  readonly grant: GrantState | undefined;
  /** What the PF held before. */
  readonly before: VfSettings;
}

/** What the journal has of a VF that is out: one entry, whichever mechanism it serves. */
export type VfEntry = KernelVfEntry | VfioVfEntry;

/** Where the mechanisms keep their part. */
export interface VfJournal {
  /** What it has now; at first as the previous instance left it. */
  readonly vfs: ReadonlyMap<PciAddress, VfEntry>;
  /** Resolves when it is on disk. @throws {JournalError} */
  keepVf(entry: VfEntry): Promise<void>;
  /** The VF is restored and clean. Written before anything that comes later; what fails is reported, and made up for. */
  forgetVf(address: PciAddress): void;
}

/** The journal of one node. */
export interface NodeJournal extends ConnectionJournal, VfJournal {
  /** Connections as the previous instance left them, by id, until they are written again or dropped. */
  readonly left: ReadonlyMap<string, JournalEntry>;
  /** Waits for what is being written. */
  close(): Promise<void>;
}

/** Between two looks whether the file is still there; each write looks, too. */
const CHECK_MS = 5_000;

export interface NodeJournalOptions {
  readonly state: StateFolder;
  readonly health: Health;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Opens the journal in the state folder. What is damaged is told once.
 * @throws {JournalError} newer-version; the file system's error when it cannot be read.
 */
export async function openNodeJournal(options: NodeJournalOptions): Promise<NodeJournal> {
  const { journal, entries } = await openFile(options);
  const stopChecks = checkAgain(journal, options.clock);
  // Keys and kinds that this version does not know are a later one's: they stay in the file, and are not ours to judge.
  const valuesOf = (kind: string) => [...entries].filter(([key]) => key.startsWith(kind)).map(([, value]) => value);
  const vfs = new Map(
    valuesOf(VF)
      .flatMap(readVf)
      .map((entry) => [entry.address, entry]),
  );
  const left = new Map(
    valuesOf(CONNECTION)
      .flatMap(readConnection)
      .map((entry) => [entry.connectionId, entry]),
  );
  return {
    left,
    vfs,
    put(entry) {
      left.delete(entry.connectionId);
      return journal.put(`${CONNECTION}${entry.connectionId}`, connectionJson(entry));
    },
    drop(connectionId) {
      left.delete(connectionId);
      return journal.drop(`${CONNECTION}${connectionId}`);
    },
    keepVf(entry) {
      vfs.set(entry.address, entry);
      return journal.put(`${VF}${entry.address}`, vfJson(entry));
    },
    forgetVf(address) {
      vfs.delete(address);
      void journal.drop(`${VF}${address}`).catch(() => {});
    },
    async close() {
      stopChecks();
      await journal.close();
    },
  };
}

async function openFile({ state, health, clock, log }: NodeJournalOptions) {
  const trouble = health.condition("journal-not-written");
  const { path: folder } = state;
  const leftOut: LeftOut = { count: 0, bytes: 0, first: undefined };
  const { journal, found } = await openJournal({
    file: await state.openAppend("journal"),
    clock,
    selection: journalSelection(leftOut),
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
function checkAgain(journal: Journal, clock: Clock): () => void {
  let checking = clock.after(CHECK_MS, check);
  function check(): void {
    void journal.check();
    checking = clock.after(CHECK_MS, check);
  }
  return () => checking.cancel();
}

function vfJson(entry: VfEntry): Json {
  const { use, ...rest } = entry;
  return (use === "kernel" ? rest : entry) as unknown as Json;
}

/** The journal's checksum says that it is ours. None where it is of a kind that we do not know. */
function readVf(value: Json): readonly VfEntry[] {
  const entry = { use: "kernel", ...(value as object) } as VfEntry;
  return entry.use === "kernel" || entry.use === "vfio" ? [entry] : [];
}

function connectionJson(entry: JournalEntry): Json {
  const { connection, ...rest } = entry;
  return { ...rest, ...(connection && { connection: Buffer.from(connection).toString("base64") }) };
}

function readConnection(value: Json): readonly JournalEntry[] {
  const { connection, ...rest } = value as unknown as { connection?: string; mechanism: string };
  if (!["KERNEL", "VFIO", "NOOP"].includes(rest.mechanism)) return [];
  const bytes = connection !== undefined && { connection: Buffer.from(connection, "base64") };
  return [{ ...rest, ...bytes } as unknown as JournalEntry];
}
