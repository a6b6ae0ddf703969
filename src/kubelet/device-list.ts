import { ListAndWatchResponseSchema } from "../gen/deviceplugin_pb.ts";
import type { DeviceView } from "../inventory/index.ts";
import { encodeMessage } from "../rpc/index.ts";

/** One device as kubelet is to see it. Its id is a secret: a pod that knows it may request its VF. */
type Device = Pick<DeviceView, "id" | "healthy" | "numaNode">;

interface Part {
  readonly device: Device;
  readonly bytes: Uint8Array;
}

/**
 * The list of one resource as kubelet reads it. A change of one device makes kubelet want all of them again, so each is
 * encoded once for as long as it stays the same. Messages of one type that follow each other are one message with all their
 * entries (the rule of protobuf on which this rests).
 */
export class DeviceList {
  #parts = new Map<string, Part>();
  #bytes: Uint8Array = new Uint8Array();

  /** The list as it is now: the same array as before while nothing changes. */
  encode(devices: readonly Device[]): Uint8Array {
    const known = [...this.#parts.values()];
    const parts = devices.map((device) => this.#partOf(device));
    if (parts.length === known.length && parts.every((part, at) => part === known[at])) return this.#bytes;
    this.#parts = new Map(parts.map((part) => [part.device.id, part]));
    this.#bytes = Buffer.concat(parts.map(({ bytes }) => bytes));
    return this.#bytes;
  }

  #partOf(device: Device): Part {
    const known = this.#parts.get(device.id);
    const isSame = known?.device.healthy === device.healthy && known.device.numaNode === device.numaNode;
    return isSame
      ? known
      : { device, bytes: encodeMessage(ListAndWatchResponseSchema, { devices: [describe(device)] }) };
  }
}

function describe({ id, healthy, numaNode }: Device) {
  const topology = numaNode === undefined ? {} : { topology: { nodes: [{ ID: BigInt(numaNode) }] } };
  return { ID: id, health: healthy ? "Healthy" : "Unhealthy", ...topology };
}
