// A node without links: the sandbox's sysfs, a netlink and a clock that a test moves by hand. What is opened is counted.
import { basename } from "node:path";
import type { TestContext } from "node:test";
import { type Machine, type MachineOptions, startMachine } from "../../sandbox/machine/machine.ts";
import type {
  Address,
  ExclusiveLock,
  KernelError,
  Link,
  ListOptions,
  NetlinkEvent,
  Rtnl,
  StateFolder,
  Uevent,
} from "../../src/kernel/index.ts";
import type { Host, Node, PfConfigFile } from "../../src/node/index.ts";
import { openNode } from "../../src/node/node.ts";
import { watchNode } from "../../src/node/node-watch.ts";
import { HandClock, settled } from "../../src/nsm/testing/fakes.ts";
import { type PciAddress, parsePciAddress, parsePfConfig } from "../../src/pci/index.ts";
import { Health } from "../../src/telemetry/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";

/** Sockets of one namespace: what they answer is written here by the test. */
export class PaperNetlink {
  links: Link[] = [];
  addresses: Address[] = [];
  /** Dumps of links are cut by changes, whatever they have. */
  doubt: KernelError | undefined;
  /** What was changed, in its order. */
  readonly changes: string[] = [];
  /** A dump answers when this has come. */
  answering: Promise<void> = Promise.resolve();
  dumps = 0;
  openSockets = 0;
  readonly #listeners = new Set<(event: NetlinkEvent) => void>();

  get listeners(): number {
    return this.#listeners.size;
  }

  say(event: NetlinkEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }

  open(): Rtnl {
    this.openSockets += 1;
    let isOpen = true;
    const rtnl = {
      watch: (_groups: unknown, listener: (event: NetlinkEvent) => void) => {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
      },
      linksNamedOrAbove: async (names: ReadonlySet<string>, options?: ListOptions) => {
        if (!isOpen) throw new Error("the socket is closed");
        this.dumps += 1;
        await this.answering;
        if (this.doubt) options?.onDoubt?.(this.doubt);
        return this.links.filter(({ name }) => names.has(name));
      },
      addresses: async () => this.addresses,
      linkByIndex: async (index: number) => this.links.find((link) => link.index === index),
      defaultRoutes: async () => [],
      setLink: async (index: number, change: object) => {
        this.changes.push(`${index} ${JSON.stringify(change)}`);
      },
      close: () => {
        if (isOpen) this.openSockets -= 1;
        isOpen = false;
      },
    };
    return rtnl as unknown as Rtnl;
  }
}

/** The list of PFs as a file that a test writes. */
class PaperConfigFile implements PfConfigFile {
  readonly path = "pci.config";
  text: string;
  listeners = 0;
  #notify = () => {};

  constructor(text: string) {
    this.text = text;
  }

  async read(): Promise<string> {
    return this.text;
  }

  onChange(listener: () => void): () => void {
    this.listeners += 1;
    this.#notify = listener;
    return () => {
      this.listeners -= 1;
    };
  }

  write(text: string): void {
    this.text = text;
    this.#notify();
  }
}

/** The link of a PF as the kernel says it. */
export function pfLinkOf(pf: PciAddress, more: Partial<Link> = {}): Link {
  return { index: 1000, name: "pf", up: true, carrier: true, parentDevice: pf, ...more } as Link;
}

/** What the node begins with. */
export interface WatchedNodeOptions extends MachineOptions {
  /** Put behind the entry of each PF. */
  readonly entry?: string;
}

/** What is open of it. */
interface Counts {
  ueventListeners: number;
  locks: number;
  /** Observations of the first PF. */
  observations: number;
}

/** What may be open. */
interface Watched {
  readonly netlink: PaperNetlink;
  readonly counts: Counts;
  readonly file: PaperConfigFile;
  readonly clock: HandClock;
}

type PfLinks = Map<PciAddress, () => Promise<Link | undefined>>;

/** The node, and a forwarder's part of it when it is opened. */
export async function watchedNode(t: TestContext, { entry = "", ...options }: WatchedNodeOptions = {}) {
  const machine = await startMachine({ pfs: 1, vfsPerPf: 2, ...options });
  t.after(() => machine.stop());
  const [netlink, clock, log] = [new PaperNetlink(), new HandClock(), recordingLog()];
  netlink.links = await linksOf(machine);
  const health = new Health(clock);
  const counts: Counts = { ueventListeners: 0, locks: 0, observations: 0 };
  const pfLinks: PfLinks = new Map();
  const host = hostOf(machine, { netlink, pfLinks, counts });
  const kept = new Map<string, string>();
  const state = stateOf(kept);
  const configText = machine.configText.replaceAll("[worker.domain]\n", `[worker.domain]\n${entry}`);
  const file = new PaperConfigFile(configText);
  /** Lets what was asked for soon happen, and waits for its end. */
  const quiet = async (ms = 100) => {
    await clock.pass(ms);
    for (let turn = 0; turn < 40; turn += 1) await settled();
    await clock.pass(0);
  };
  /** `between` happens after the first look, and before anything of the node is heard. A lock that is held is waited for in `waitsMs`. */
  const open = async ({ between = (_node: Node) => {}, isQuiet = true, waitsMs = 0 } = {}) => {
    const pfConfig = parsePfConfig(configText, file.path);
    const opening = openNode({ pfConfig, host, state, health, clock, log });
    const [node] = await Promise.all([opening, clock.pass(waitsMs)]);
    between(node);
    const watch = await watchNode({ node, host, pfConfigFile: file, health, clock, log });
    if (isQuiet) await quiet();
    const close = async () => {
      const closing = watch.close();
      await clock.pass(1_000);
      await closing;
      node.close();
    };
    return { node, watch, close };
  };
  const left = () => leftOf({ netlink, counts, file, clock });
  const announce = (event: Partial<Uevent>) => machine.announce({ fields: {}, devpath: "", ...event } as Uevent);
  const pf = parsePciAddress(machine.pfs[0] ?? "01:00.0");
  return {
    machine,
    pf,
    host,
    netlink,
    pfLinks,
    clock,
    log,
    health,
    counts,
    file,
    state: kept,
    open,
    quiet,
    left,
    announce,
  };
}

function stateOf(kept: Map<string, string>): StateFolder {
  return {
    read: async (name: string) => kept.get(name),
    replace: async (name: string, text: string) => void kept.set(name, text),
  } as unknown as StateFolder;
}

function leftOf({ netlink, counts, file, clock }: Watched) {
  return {
    sockets: netlink.openSockets,
    netlinkListeners: netlink.listeners,
    ueventListeners: counts.ueventListeners,
    fileListeners: file.listeners,
    timers: clock.timerCount,
    locks: counts.locks,
  };
}

/** The machine with a netlink of ours, and with what is opened counted. */
function hostOf(
  machine: Machine,
  { netlink, pfLinks, counts }: { readonly netlink: PaperNetlink; readonly pfLinks: PfLinks; readonly counts: Counts },
): { -readonly [Part in keyof Host]: Host[Part] } {
  return {
    ...machine,
    openAccess: () => {
      throw new Error("no cgroups here");
    },
    openRtnl: () => netlink.open(),
    pfLink: async (_place, pf) => await pfLinks.get(pf)?.(),
    queryEswitchMode: async (pf) => {
      counts.observations += pf === machine.pfs[0] ? 1 : 0;
      return await machine.queryEswitchMode(pf);
    },
    uevents: {
      subscribe(listener) {
        counts.ueventListeners += 1;
        const stop = machine.uevents.subscribe(listener);
        return () => {
          counts.ueventListeners -= 1;
          stop();
        };
      },
      close() {},
    },
    locks: { ...machine.locks, pf: (address) => countedLock(machine.locks.pf(address), counts) },
  };
}

function countedLock(lock: ExclusiveLock | undefined, counts: Counts): ExclusiveLock | undefined {
  if (!lock) return undefined;
  let isHeld = true;
  counts.locks += 1;
  const release = () => {
    if (isHeld) counts.locks -= 1;
    isHeld = false;
    lock.release();
  };
  return { isCurrent: () => lock.isCurrent(), release };
}

/** As sysfs has them now, all down. */
async function linksOf({ devices, pfs }: Machine): Promise<Link[]> {
  const links: Link[] = [];
  for (const pf of pfs) {
    const vfs = (await devices.list(pf)).filter((name) => name.startsWith("virtfn"));
    const targets = await Promise.all(vfs.map((name) => devices.readLink(`${pf}/${name}`)));
    for (const address of [pf, ...targets.map((target) => basename(target))]) {
      const [name = ""] = await devices.list(`${address}/net`);
      const index = Number(await devices.readText(`${address}/net/${name}/ifindex`));
      links.push({ index, name, up: false, carrier: false, parentDevice: address } as Link);
    }
  }
  return links;
}

/** Nothing is open. */
export const NOTHING_LEFT = {
  sockets: 0,
  netlinkListeners: 0,
  ueventListeners: 0,
  fileListeners: 0,
  timers: 0,
  locks: 0,
};
