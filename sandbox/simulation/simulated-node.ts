// What is one for all processes of the simulated node: its clock, its sockets, its folders, its adapter with the links, its disk.
import type { UndoStack } from "../../src/async/index.ts";
import { VirtualClock } from "../../src/async/testing/virtual-clock.ts";
import type { Netns } from "../../src/kernel/index.ts";
import type { Host } from "../../src/node/index.ts";
import { type PciAddress, parsePciAddress } from "../../src/pci/index.ts";
import type { Transport } from "../../src/rpc/index.ts";
import { type Machine, startMachine } from "../machine/machine.ts";
import { FATES, UnsyncedDisk } from "../machine/unsynced-disk.ts";
import { Handles } from "./handles.ts";
import { MemoryCgroups } from "./memory-access.ts";
import { MemoryFolders } from "./memory-folders.ts";
import { MemoryLinks } from "./memory-links.ts";
import { MemoryLocks } from "./memory-locks.ts";
import type { Seed } from "./seed.ts";
import { simulatedNet } from "./simulated-net.ts";
import { Trace } from "./trace.ts";
import { type VfOnNode, vfOnNode } from "./vf-on-node.ts";

/** How long things take at most, in ms: a piece of a message, a timer that is late, news of the kernel. */
const LONGEST = { message: 4, late: 1, news: 20 } as const;

export class SimulatedNode {
  readonly clock: VirtualClock;
  readonly trace: Trace;
  readonly net: Transport;
  readonly folders: MemoryFolders;
  readonly cgroups = new MemoryCgroups();
  readonly locks = new MemoryLocks();
  /** Where the forwarder keeps its state. */
  disk = new UnsyncedDisk();
  readonly #seed: Seed;
  readonly #handles = new Handles();
  readonly #vfsBefore = new Map<PciAddress, VfOnNode>();
  #made: { readonly machine: Machine; readonly links: MemoryLinks } | undefined;

  constructor(seed: Seed) {
    this.#seed = seed;
    this.clock = new VirtualClock({ late: seed.delays("timers", LONGEST.late) });
    this.trace = new Trace(this.clock);
    const { clock } = this;
    this.folders = new MemoryFolders(seed.lane("folders", clock, LONGEST.news));
    const delays = { clock, random: seed.random("messages"), longestMs: LONGEST.message };
    this.net = this.trace.calls(simulatedNet(delays, { handles: this.#handles, folders: this.folders }));
  }

  /** One adapter with one PF. */
  async start(vfs: number, undo: UndoStack): Promise<void> {
    undo.push("handles", () => this.#handles.close());
    undo.push("clock", () => this.clock.stop());
    const { clock } = this;
    let links: MemoryLinks | undefined;
    const machine = await startMachine({
      pfs: 1,
      vfsPerPf: vfs,
      clock,
      notifyLater: this.#seed.lane("uevents", clock, LONGEST.news),
      kernel: (parts) => {
        const netdevs = new MemoryLinks(parts, this.#handles, this.#seed.lane("rtnetlink", clock, LONGEST.news));
        links = netdevs;
        const openRtnl = (netns: Netns) => netdevs.openRtnl(netns);
        return { netdevs, netns: netdevs.host.open(), locks: this.locks, openRtnl, close: async () => {} };
      },
    });
    if (!links) throw new Error("The machine has asked for no links");
    this.#made = { machine, links };
    await this.#keepVfs(machine, vfs);
    undo.push("machine", async () => {
      await machine.stop();
      machine.netns.close();
    });
  }

  get machine(): Machine {
    return this.#adapter.machine;
  }

  get links(): MemoryLinks {
    return this.#adapter.links;
  }

  /** Addresses of all VFs. */
  get vfs(): Iterable<PciAddress> {
    return this.#vfsBefore.keys();
  }

  /** As the VF was before the first forwarder and the first client, bound to its kernel driver. */
  vfBefore(address: PciAddress): VfOnNode {
    const before = this.#vfsBefore.get(address);
    if (!before) throw new Error(`The machine has had no VF ${address}`);
    return before;
  }

  async #keepVfs({ devices, pfs }: Machine, count: number): Promise<void> {
    for (const pf of pfs) {
      for (let index = 0; index < count; index++) {
        const address = parsePciAddress((await devices.readLink(`${pf}/virtfn${index}`)).replace("../", ""));
        this.#vfsBefore.set(address, vfOnNode(this, { address, pf, index }));
      }
    }
  }

  /** The power of the disk alone is cut: of what was not synced something is left, or not. */
  cutPower(fateOf: string): void {
    const fates = Object.values(FATES);
    this.disk = this.disk.afterPowerCut(fates[this.#seed.draw(fateOf, fates.length)] ?? FATES.lost);
  }

  /** As a process sees it that is started now. */
  host(process: string): Host {
    const { machine, links, disk, folders, clock } = this;
    return {
      devices: machine.devices,
      drivers: machine.drivers,
      vfio: machine.vfio,
      uevents: machine.uevents,
      netns: machine.netns,
      queryEswitchMode: (pf) => machine.queryEswitchMode(pf),
      openRtnl: (netns) => machine.openRtnl(netns),
      netnsOf: (fd) => links.netnsOf(fd),
      unixListeners: () => [],
      linkOwnerOf: machine.linkOwnerOf,
      linkSettings: links.settings,
      pfLink: machine.pfLink,
      locks: machine.locks,
      disk,
      openFolder: (path) => folders.open(path, clock),
      watchFolder: (path) => folders.watch(path),
      random: this.#seed.random(process),
      pfPort: (pf) => machine.pfPort(pf),
      openAccess: (parts) => this.cgroups.openAccess(parts.clock),
    };
  }

  get #adapter() {
    if (!this.#made) throw new Error("The machine has not been started");
    return this.#made;
  }
}
