// What is kept on disk of connections and of the functions that are out with them: docs/decisions/013.
import type { GrantState } from "../access/index.ts";
import type { Clock } from "../async/index.ts";
import { type Journal, type Json, openJournal } from "../journal/index.ts";
import type { StateFolder } from "../kernel/index.ts";
import type { AttachmentState, VfSettings } from "../netdev/index.ts";
import type { ConnectionJournal, JournalEntry } from "../nsm/index.ts";
import { RpcError } from "../rpc/index.ts";
import type { PciAddress } from "../sriov/index.ts";
import type { Health, Log } from "../telemetry/index.ts";
import { CONNECTION, journalSelection, type LeftOut, VF } from "./journal-selection.ts";

/** A function that has been touched for a connection, and how to make it again what it was. */
export interface KeptVf {
  readonly address: PciAddress;
  readonly connectionId: string;
  readonly tokenId: string;
  /** The client's namespace, "4:4026532441": by device and inode, as long as it lives. */
  readonly netns: string;
  readonly state: AttachmentState;
}

/** A function that a pod may open by VFIO, and how to take it back. */
export interface KeptVfio {
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

/** Where the mechanisms keep their part. A function has one entry, whichever of them it serves. */
export interface VfJournal {
  /** Resolves when it is on disk. @throws {RpcError} UNAVAILABLE. */
  keepVf(vf: KeptVf | KeptVfio): Promise<void>;
  /** The function is home and clean. Written before anything that comes later; what fails is told, and made up for. */
  forgetVf(address: PciAddress): void;
}

/** The journal of one node. */
export interface NodeJournal extends ConnectionJournal, VfJournal {
  /** As an earlier process left it. */
  readonly connections: readonly JournalEntry[];
  /** What it has now; at first as an earlier process left it. */
  readonly vfs: ReadonlyMap<PciAddress, KeptVf>;
  /** What was forgotten since the start: how functions were before their last client. */
  readonly forgotten: ReadonlyMap<PciAddress, KeptVf>;
  readonly vfioVfs: ReadonlyMap<PciAddress, KeptVfio>;
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
  const valuesOf = (kind: string) => [...entries].filter(([key]) => key.startsWith(kind)).map(([, value]) => value);
  // The journal's checksum says that they are ours.
  const kept = valuesOf(VF) as unknown as readonly (KeptVf | KeptVfio)[];
  const vfs = new Map<PciAddress, KeptVf>();
  const vfioVfs = new Map<PciAddress, KeptVfio>();
  const note = (vf: KeptVf | KeptVfio) => {
    if (isVfio(vf)) vfioVfs.set(vf.address, vf);
    else vfs.set(vf.address, vf);
  };
  kept.forEach(note);
  const forgotten = new Map<PciAddress, KeptVf>();
  return {
    connections: valuesOf(CONNECTION).map(readConnection),
    vfs,
    vfioVfs,
    forgotten,
    put: (entry) => saved(journal.put(`${CONNECTION}${entry.connectionId}`, connectionJson(entry))),
    drop: (connectionId) => journal.drop(`${CONNECTION}${connectionId}`),
    keepVf(vf) {
      note(vf);
      forgotten.delete(vf.address);
      return saved(journal.put(`${VF}${vf.address}`, vf as unknown as Json));
    },
    forgetVf(address) {
      const last = vfs.get(address);
      if (last) forgotten.set(address, last);
      vfs.delete(address);
      vfioVfs.delete(address);
      void journal.drop(`${VF}${address}`).catch(() => {});
    },
    async close() {
      stopChecks();
      await journal.close();
    },
  };
}

async function openFile({ state, health, clock, log }: NodeJournalOptions) {
  const trouble = health.declare({ code: "journal-not-written", severity: "blocking" });
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

function isVfio(vf: KeptVf | KeptVfio): vf is KeptVfio {
  return "use" in vf;
}

/** What cannot be remembered is not begun; the caller may try again when a person has seen to the disk. */
async function saved(writing: Promise<void>): Promise<void> {
  try {
    await writing;
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new RpcError("UNAVAILABLE", message, { cause });
  }
}

function connectionJson(entry: JournalEntry): Json {
  const { connection, ...rest } = entry;
  return { ...rest, ...(connection && { connection: Buffer.from(connection).toString("base64") }) };
}

function readConnection(value: Json): JournalEntry {
  const { connection, ...rest } = value as unknown as Omit<JournalEntry, "connection"> & { connection?: string };
  return { ...rest, ...(connection !== undefined && { connection: Buffer.from(connection, "base64") }) };
}
