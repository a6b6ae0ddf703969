/** What one container of a pod has got. */
export interface PodAllocation {
  readonly pod: string;
  readonly podUid: string;
  readonly container: string;
  /** Of a plain init container. */
  readonly isInit: boolean;
  readonly resource: string;
  readonly ids: readonly string[];
  /** Environment that the plugin asks for. */
  readonly envs: Readonly<Record<string, string>>;
}

/** The text of kubelet's file (devicemanager/checkpoint, DevicesPerNUMA): -1 stands for devices without a NUMA node. */
export function checkpointText(allocations: readonly PodAllocation[]): string {
  const PodDeviceEntries = allocations.map(({ podUid, container, resource, ids }) => ({
    PodUID: podUid,
    ContainerName: container,
    ResourceName: resource,
    DeviceIDs: { "-1": ids },
    AllocResp: "",
  }));
  return JSON.stringify({ Data: { PodDeviceEntries, RegisteredDevices: {} }, Checksum: 0 });
}
