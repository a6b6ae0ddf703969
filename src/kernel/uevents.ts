import { guarded } from "../async/index.ts";
import type { Log } from "../telemetry/index.ts";
import { AF_NETLINK, KernelSocket, netlinkAddress } from "./kernel-socket.ts";
import type { Netns } from "./netns.ts";

const SOCK_RAW = 3;
/** NETLINK_KOBJECT_UEVENT, include/uapi/linux/netlink.h. */
const NETLINK_KOBJECT_UEVENT = 15;
/** Group 1 is the kernel's own word; group 2 carries what udev adds to it. */
const KERNEL_GROUP = 1;
const SOL_SOCKET = 1;
/** SO_RCVBUFFORCE, include/uapi/asm-generic/socket.h: beyond the limit that unprivileged processes have. */
const SO_RCVBUFFORCE = 33;
const RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024;
/** UEVENT_BUFFER_SIZE (2 KiB) and the header line, include/linux/kobject.h; a page is more than any event. */
const EVENT_BYTES = 8192;
const EVENTS_PER_TURN = 64;

/** News of a device, as the kernel reported it. */
export interface Uevent {
  /** "add", "remove", "change", "bind", "unbind", "move"; "lost" when the kernel had to drop events: read the node again. */
  readonly action: string;
  /** Path beneath /sys, for example "/devices/pci0000:00/0000:00:1c.0/0000:01:10.0". */
  readonly devpath: string;
  /** "pci", "net", "vfio", … */
  readonly subsystem: string;
  readonly fields: Readonly<Record<string, string>>;
}

/** Where news of devices comes from. */
export interface UeventSource {
  /** Calls back for each event from now on. Returns how to stop. */
  subscribe(listener: (event: Uevent) => void): () => void;
  close(): void;
}

/**
 * Listens to the kernel's device events. Events of network devices reach only the namespace that they are in, others
 * every namespace of the host.
 * @throws {KernelError}
 */
export function openUevents(
  log: Log,
  netns: Netns,
  { receiveBufferBytes = RECEIVE_BUFFER_BYTES }: { readonly receiveBufferBytes?: number } = {},
): UeventSource {
  const kind = { domain: AF_NETLINK, type: SOCK_RAW, protocol: NETLINK_KOBJECT_UEVENT };
  const socket = KernelSocket.open(kind, netns);
  const listeners = new Set<(event: Uevent) => void>();
  try {
    enlarge(socket, receiveBufferBytes, log);
    socket.bind(netlinkAddress(KERNEL_GROUP));
    const buffer = Buffer.allocUnsafeSlow(EVENT_BYTES);
    const readSome = () => {
      // A listener may close us. What is left is reported in the next turn.
      for (let turn = 0; turn < EVENTS_PER_TURN && !socket.isClosed; turn += 1) {
        const event = readEvent(socket, buffer, log);
        if (event === "none") return;
        if (event) for (const notify of [...listeners]) notify(event);
      }
    };
    socket.onReadable(guarded("kernel-socket", readSome));
  } catch (error) {
    socket.close();
    throw error;
  }
  return {
    subscribe(listener) {
      const notify = guarded("kernel-socket", listener);
      listeners.add(notify);
      return () => listeners.delete(notify);
    },
    close() {
      listeners.clear();
      socket.close();
    },
  };
}

/**
 * Reads one datagram: "action@devpath", then KEY=value, each with a NUL behind it (lib/kobject_uevent.c). Undefined for
 * anything else, for example what udev sends.
 */
export function parseUevent(datagram: Buffer): Uevent | undefined {
  const [head = "", ...rest] = datagram.toString("utf8").split("\0");
  const at = head.indexOf("@");
  if (at <= 0) return undefined;
  const fields: Record<string, string> = {};
  for (const line of rest) {
    const equals = line.indexOf("=");
    if (equals > 0) fields[line.slice(0, equals)] = line.slice(equals + 1);
  }
  return { action: head.slice(0, at), devpath: head.slice(at + 1), subsystem: fields["SUBSYSTEM"] ?? "", fields };
}

function readEvent(socket: KernelSocket, buffer: Buffer, log: Log): Uevent | undefined | "none" {
  try {
    const received = socket.receiveFrom(buffer);
    if (received === undefined) return "none";
    const { length, from } = received;
    // A process with CAP_NET_ADMIN may send to the group, but only the kernel sends from port 0.
    const isKernel = from.length >= 12 && from.readUInt32LE(4) === 0;
    return isKernel && length <= buffer.length ? parseUevent(buffer.subarray(0, length)) : undefined;
  } catch (error) {
    // ENOBUFS: more came than the buffer holds. Nothing else is known to come; then too no listener may rely on the events.
    log.warn("uevents-lost", { why: String(error) });
    return { action: "lost", devpath: "", subsystem: "", fields: {} };
  }
}

function enlarge(socket: KernelSocket, bytes: number, log: Log): void {
  try {
    socket.setOption(SOL_SOCKET, SO_RCVBUFFORCE, bytes);
  } catch (error) {
    log.debug("uevent-buffer-not-enlarged", { error: String(error) });
  }
}
