/** Name of the file in the device plugin folder where kubelet's device manager keeps what it has given to pods. */
export const CHECKPOINT_FILE = "kubelet_internal_checkpoint";

/** Who got a device, as kubelet keeps it over its own restarts. */
interface CheckpointHolder {
  readonly podUid: string;
  readonly container: string;
  readonly resource: string;
}

/** Device id to holder. Kubelet rewrites the file only when it gives a device out: it can name pods that have ended. */
export type Checkpoint = ReadonlyMap<string, CheckpointHolder>;

/**
 * Reads kubelet's file (kubernetes, pkg/kubelet/cm/devicemanager/checkpoint). Ids are listed by NUMA node, before
 * Kubernetes 1.20 in one list. The checksum is over Go's own print of the data and is not verified. Undefined when the
 * text is not such a file; single entries that make no sense are left out.
 */
export function parseCheckpoint(text: string): Checkpoint | undefined {
  const data = fieldOf(parseJson(text), "Data");
  if (!isRecord(data)) return undefined;
  const entries = data["PodDeviceEntries"] ?? [];
  if (!Array.isArray(entries)) return undefined;
  const holders = new Map<string, CheckpointHolder>();
  for (const entry of entries) {
    const [podUid, container, resource] = ["PodUID", "ContainerName", "ResourceName"].map((key) => fieldOf(entry, key));
    if (typeof podUid !== "string" || typeof container !== "string" || typeof resource !== "string") continue;
    for (const id of deviceIds(fieldOf(entry, "DeviceIDs"))) holders.set(id, { podUid, container, resource });
  }
  return holders;
}

function deviceIds(value: unknown): readonly string[] {
  const lists = Array.isArray(value) ? [value] : isRecord(value) ? Object.values(value) : [];
  return lists.flatMap((list) => (Array.isArray(list) ? list.filter((id) => typeof id === "string") : []));
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function fieldOf(value: unknown, key: string): unknown {
  return isRecord(value) ? value[key] : undefined;
}
