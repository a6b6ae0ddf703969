import type { Log } from "../telemetry/index.ts";
import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import { KernelSocket } from "./kernel-socket.ts";
import type { Netns } from "./netns.ts";

const AF_NETLINK = 16;
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

/** News of a device, as the kernel told it. */
export interface Uevent {
  /** "add", "remove", "change", "bind", "unbind", "move"; "lost" when the kernel had to drop events: look again. */
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
export function openUevents(log: Log, netns?: Netns): UeventSource {
  const kind = { domain: AF_NETLINK, type: SOCK_RAW, protocol: NETLINK_KOBJECT_UEVENT };
  const socket = KernelSocket.open(kind, netns);
  enlarge(socket, log);
  socket.bind(netlinkAddress(KERNEL_GROUP));
  const listeners = new Set<(event: Uevent) => void>();
  const buffer = Buffer.allocUnsafeSlow(EVENT_BYTES);
  const tell = (event: Uevent) => {
    for (const listener of [...listeners]) listener(event);
  };
  socket.onReadable(() => {
    for (;;) {
      const event = readEvent(socket, buffer, log);
      if (event === "none") return;
      if (event) tell(event);
    }
  });
  return {
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close: () => socket.close(),
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
    const length = socket.receive(buffer);
    if (length === undefined) return "none";
    return length > buffer.length ? undefined : parseUevent(buffer.subarray(0, length));
  } catch (error) {
    if (!(error instanceof KernelError) || error.errno !== Errno.ENOBUFS) throw error;
    log.warn("uevents-lost", { why: error.message });
    return { action: "lost", devpath: "", subsystem: "", fields: {} };
  }
}

function enlarge(socket: KernelSocket, log: Log): void {
  try {
    socket.setOption(SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES);
  } catch (error) {
    log.debug("uevent-buffer-not-enlarged", { error: String(error) });
  }
}

/** struct sockaddr_nl, include/uapi/linux/netlink.h: family, pad, pid (0: the kernel chooses), groups. */
function netlinkAddress(groups: number): Buffer {
  const address = Buffer.alloc(12);
  address.writeUInt16LE(AF_NETLINK, 0);
  address.writeUInt32LE(groups, 8);
  return address;
}
