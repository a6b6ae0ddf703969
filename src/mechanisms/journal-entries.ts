// The journal's entries: as they are used, and as version 1 has them on disk (docs/decisions/013, 041).
import type { GrantState } from "../access/index.ts";
import type { BeforeClient } from "../inventory/index.ts";
import type { AttachmentState, KeptSettings, VfSettings } from "../netdev/index.ts";
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
  /** Its connection has ended: it is to be cleaned, whatever else is known of it. */
  readonly isLeft?: true;
  /** Its client had it before its connection was begun: until that is established it stays where it is. */
  readonly isFound?: true;
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
  /** The VF that this is of, as `VfLink` says; what an older forwarder has kept lacks it. */
  readonly device?: string;
  /** As of KERNEL. */
  readonly isFound?: true;
}

/** What the journal has of a VF that is out: one entry, whichever mechanism it serves. */
export type VfEntry = KernelVfEntry | VfioVfEntry;

type Stored<Entry> = Entry extends unknown ? Omit<Entry, "connection"> & { readonly connection?: string } : never;
export type StoredConnection = Stored<JournalEntry>;
/** What the host had set of a VF's network device; of the entry of that connection, which lacks it on disk. */
export interface StoredSettings {
  readonly address: PciAddress;
  readonly connectionId: string;
  readonly kept: KeptSettings;
}
/** A VF that is in no client's hands and not as the host had it; without `before` it is not known how that was. */
export interface UnrestoredVf {
  readonly address: PciAddress;
  readonly before?: BeforeClient;
  /** A client may still have its network device: it gets another one before it is anything else's. */
  readonly isNewNeeded?: boolean;
  /** Another link had its name when it was last given back: it waits for it. */
  readonly isNameTaken?: boolean;
  /** While VFIO has it: the address that it had chosen itself, which its PF names as if it had set it; all zero where it had not. */
  readonly chosenMac?: string;
  /** In which boot of the machine that was so: the next one makes the devices again. Undefined where that was not known. */
  readonly boot?: string;
}
/** On disk, as far as this version knows them: others are a later one's, stay in the file, and are not ours to judge. */
export type StoredEntry = StoredConnection | Omit<KernelVfEntry, "use"> | VfioVfEntry | StoredSettings | UnrestoredVf;

const USES: readonly string[] = ["kernel", "vfio"];
const MECHANISMS: readonly string[] = ["KERNEL", "VFIO", "NOOP"];

export function storedVf(entry: VfEntry): StoredEntry {
  if (entry.use === "vfio") return entry;
  const { use: _, state, ...rest } = entry;
  const { kept: _kept, ...own } = state;
  return { ...rest, state: own };
}

export function storedSettings(entry: VfEntry): StoredSettings | undefined {
  const { address, connectionId } = entry;
  const kept = entry.use === "kernel" ? entry.state.kept : undefined;
  return kept && { address, connectionId, kept };
}

/** The journal's checksum says that it is ours. Undefined where it is of a kind that we do not know. */
export function readVf(
  stored: StoredEntry,
  settingsOf: (address: PciAddress) => StoredSettings | undefined,
): VfEntry | undefined {
  if (!("address" in stored) || "kept" in stored || !("connectionId" in stored)) return undefined;
  const entry: VfEntry = { use: "kernel", ...stored };
  if (!USES.includes(entry.use)) return undefined;
  const settings = settingsOf(entry.address);
  if (entry.use !== "kernel" || settings?.connectionId !== entry.connectionId) return entry;
  // An entry of an earlier version has them itself.
  return { ...entry, state: { kept: settings.kept, ...entry.state } };
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
