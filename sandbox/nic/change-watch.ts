import { type Address, type HostFiles, type NetlinkEvent, type Netns, Rtnl } from "../../src/kernel/index.ts";

/** What reads and changes the settings of virtual functions through their physical one. */
interface Port<Settings, Change> {
  readonly pf: string;
  read(vfIndex: number): Promise<Settings>;
  write(vfIndex: number, change: Change): Promise<void>;
}

/** Counts what changes on the node, from outside the forwarder: to prove that something changed nothing. */
export class ChangeWatch {
  /** What changed since the last `forget`, in words: "enp1s0f0v3 new-link", "write 0000:01:10.0/driver_override". */
  readonly seen: string[] = [];
  readonly #stops: (() => void)[] = [];
  readonly #marks: (() => Promise<void>)[] = [];

  /** Hears every change of links and addresses in a network namespace; routes and rules come with their own writes. */
  watchNetns(name: string, netns: Netns): void {
    const rtnl = Rtnl.open({ netns });
    let isLogged = () => {};
    const note = (event: NetlinkEvent) => {
      if ("address" in event && event.address.address === MARK.address) isLogged();
      else if ("address" in event && isOfKernel(event.address)) return;
      else this.seen.push(`${name}: ${textOf(event)}`);
    };
    this.#marks.push(async () => {
      const logged = Promise.withResolvers<void>();
      isLogged = logged.resolve;
      await rtnl.addAddress(MARK);
      await rtnl.deleteAddress(MARK);
      await logged.promise;
    });
    const unwatch = rtnl.watch(["link", "ipv4-address", "ipv6-address"], note);
    this.#stops.push(() => {
      unwatch();
      rtnl.close();
    });
  }

  /** The same files, with every write to them written down. */
  watchFiles(name: string, files: HostFiles): HostFiles {
    return {
      readText: (path) => files.readText(path),
      list: (path) => files.list(path),
      readLink: (path) => files.readLink(path),
      exists: (path) => files.exists(path),
      inode: (path) => files.inode(path),
      deviceNumber: (path) => files.deviceNumber(path),
      heldBy: (path) => files.heldBy(path),
      writeText: (path, text, options) => {
        this.seen.push(`${name}: write ${path}`);
        return files.writeText(path, text, options);
      },
    };
  }

  /** The same port of a physical function, with every change through it written down. */
  watchPort<Settings, Change extends object>(name: string, port: Port<Settings, Change>): Port<Settings, Change> {
    return {
      pf: port.pf,
      read: (vfIndex) => port.read(vfIndex),
      write: (vfIndex, change) => {
        this.seen.push(`${name}: set ${Object.keys(change).join(", ")} of VF ${vfIndex}`);
        return port.write(vfIndex, change);
      },
    };
  }

  /** The kernel has reported all that was changed before: the event of a change of our own, which is not written down, comes after theirs. */
  async hasHeardAll(): Promise<void> {
    for (const mark of this.#marks) await mark();
  }

  forget(): void {
    this.seen.length = 0;
  }

  close(): void {
    for (const stop of this.#stops.splice(0)) stop();
  }
}

/** On the loopback device of the namespace. */
const MARK = { ifindex: 1, address: "127.0.0.77", prefixLength: 32 };

/**
 * The kernel gives each link that comes up a link-local address (IFAPROT_KERNEL_LL, 0 before Linux 5.18), and reports it when it has proved it
 * unique, a second or more later.
 */
function isOfKernel({ address, protocol }: Address): boolean {
  return address.startsWith("fe80:") && (protocol === 3 || protocol === 0);
}

function textOf(event: NetlinkEvent): string {
  if (event.kind === "lost") return "changes, more than could be read";
  if (event.kind === "default-route") return `${event.kind} of IPv${event.route.family}`;
  return `${event.kind} ${"link" in event ? event.link.name : event.address.address}`;
}
