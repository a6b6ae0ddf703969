// The journal's entries: as they are used, and as version 1 has them on disk (docs/decisions/013, 041).
import type { GrantState } from "../access/index.ts";
import type { AttachmentState, VfSettings } from "../netdev/index.ts";
import type { JournalEntry } from "../nsm/index.ts";
import type { PciAddress } from "../pci/index.ts";

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

type Stored<Entry> = Entry extends unknown ? Omit<Entry, "connection"> & { readonly connection?: string } : never;
export type StoredConnection = Stored<JournalEntry>;
/** On disk, as far as this version knows them: others are a later one's, stay in the file, and are not ours to judge. */
export type StoredEntry = StoredConnection | Omit<KernelVfEntry, "use"> | VfioVfEntry;

const USES: readonly string[] = ["kernel", "vfio"];
const MECHANISMS: readonly string[] = ["KERNEL", "VFIO", "NOOP"];

export function storedVf(entry: VfEntry): StoredEntry {
  if (entry.use === "vfio") return entry;
  const { use: _, ...kept } = entry;
  return kept;
}

/** The journal's checksum says that it is ours. Undefined where it is of a kind that we do not know. */
export function readVf(stored: StoredEntry): VfEntry | undefined {
  if (!("address" in stored)) return undefined;
  const entry: VfEntry = { use: "kernel", ...stored };
  return USES.includes(entry.use) ? entry : undefined;
}

export function storedConnection(entry: JournalEntry): StoredEntry {
  const { connection, ...rest } = entry;
  return { ...rest, ...(connection && { connection: Buffer.from(connection).toString("base64") }) };
}

/** As `readVf`. */
export function readConnection(stored: StoredEntry): JournalEntry | undefined {
  if ("address" in stored || !MECHANISMS.includes(stored.mechanism)) return undefined;
  const { connection, ...rest } = stored;
  return { ...rest, ...(connection !== undefined && { connection: Buffer.from(connection, "base64") }) };
}
