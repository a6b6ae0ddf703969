// A node with all its peers in one process, on one virtual clock, in an order that one seed decides. No socket, no timer and no link of this
// machine is touched, and of its disk only the folder for temporary files, by handles.ts; the forwarder, and the peers of the sandbox, are
// the same that run on them.
import { UndoStack } from "../../src/async/index.ts";
import { type Forwarder, type ForwarderSettings, startForwarder } from "../../src/forwarder.ts";
import { conditionOf } from "../../src/inventory/index.ts";
import { Fd, type Netns } from "../../src/kernel/index.ts";
import { parsePfConfig } from "../../src/pci/index.ts";
import type { PodAllocation } from "../kubelet/kubelet.ts";
import type { Client, ClientOptions } from "../nsm/client.ts";
import { openHandles } from "./handles.ts";
import { RealWork } from "./real-work.ts";
import { Seed } from "./seed.ts";
import { SimulatedNode } from "./simulated-node.ts";
import { PLUGIN_FOLDER, POD_RESOURCES_FOLDER, SimulatedPeers, TOKEN_LIFETIME_MS } from "./simulated-peers.ts";
import { SimulatedProcess } from "./simulated-process.ts";
import { isOwner, ownersOf } from "./vf-owners.ts";

export const RESOURCE = "worker.domain/10G";
/** The same VFs stand for it, too: one whose token is out is not offered there. */
export const OTHER_RESOURCE = "worker.domain/intel";
/** Its name among NSM's programs; how many there were before is behind it. */
const FORWARDER = "forwarder";
/** Of its segment in a path: behind the client's and the manager's. */
export const FORWARDER_INDEX = 2;
export const STATE_FOLDER = "/sim/state";
/** How long a step of the forwarder takes at most before it is done, and once more after, in ms. */
const LONGEST_STEP_MS = 3;

export interface SimulationOptions {
  readonly seed: number;
  /** VFs of the one PF; 4 by default. */
  readonly vfs?: number;
  /** Names of the endpoints; "nse-1" by default. */
  readonly endpoints?: readonly string[];
}

/** A pod with its client. */
export interface SimulatedPod {
  readonly name: string;
  readonly allocation: PodAllocation;
  readonly netns: Netns;
  readonly client: Client;
}

export class Simulation {
  readonly seed: Seed;
  readonly vfCount: number;
  readonly node: SimulatedNode;
  readonly peers: SimulatedPeers;
  /** The forwarder that runs, or has run last. */
  process: SimulatedProcess | undefined;
  forwarder: Forwarder | undefined;
  /** Asked before and after each step of the forwarder: whether it dies there. */
  diesAt: ((step: string, when: "before" | "after") => boolean) | undefined;
  /** How many have died. */
  deaths = 0;
  #starts = 0;
  #upgrades = 0;
  /** What must never be, not even on the way. */
  readonly violations: string[] = [];
  /** These have had their VF since they were answered, and nothing may take it, not even for a moment. */
  readonly keeping = new Set<SimulatedPod>();
  readonly #undo = new UndoStack();
  readonly #realWork = new RealWork();
  #abortStart = () => {};

  private constructor({ seed, vfs = 4, endpoints = ["nse-1"] }: SimulationOptions) {
    this.seed = new Seed(seed);
    this.vfCount = vfs;
    this.node = new SimulatedNode(this.seed);
    this.peers = new SimulatedPeers(this.seed, this.node, endpoints);
  }

  /** Starts everything but the forwarder. */
  static async start(options: SimulationOptions): Promise<Simulation> {
    const simulation = new Simulation(options);
    await simulation.node.start(simulation.vfCount, simulation.#undo);
    await simulation.peers.start(simulation.#undo);
    return simulation;
  }

  async startForwarder(): Promise<Forwarder> {
    const { node, seed } = this;
    const abort = new AbortController();
    const process = new SimulatedProcess({
      clock: node.clock,
      transport: node.net,
      stepMs: seed.delays("steps", LONGEST_STEP_MS),
      onStep: (step, when) => this.#onStep(process, step, when),
    });
    this.process = process;
    this.#abortStart = () => abort.abort(new Error("the forwarder is stopped"));
    const { clock, transport } = process;
    this.forwarder = await startForwarder({
      settings: this.#settings,
      pfConfig: parsePfConfig(node.machine.configText, "pci.config"),
      host: process.host(node.host(`forwarder ${this.#starts++}`)),
      transport,
      clock,
      log: node.trace.log(() => !process.isOver),
      signal: abort.signal,
    });
    return this.forwarder;
  }

  /** Of the forwarder that runs, and of the next one if it is not upgraded. */
  get forwarderName(): string {
    return `${FORWARDER}-${this.#upgrades + 1}`;
  }

  /** The next forwarder is a pod of another name, as the DaemonSet makes one, and so has another SPIFFE ID. */
  upgrade(): void {
    const { workload, spire } = this.peers;
    this.#upgrades += 1;
    this.node.trace.say("upgraded", this.forwarderName);
    workload.issue(spire.idOf(`ns/nsm-system/pod/${this.forwarderName}`));
  }

  /** As SIGTERM does. */
  async stopForwarder(): Promise<void> {
    const { forwarder } = this;
    this.forwarder = undefined;
    this.#abortStart();
    await forwarder?.stop();
  }

  /** Ends it where it is, as SIGKILL and a power cut of its disk alone would; the node lives on. */
  kill(): void {
    this.diesAt = undefined;
    this.deaths += 1;
    this.node.trace.say("killed", this.forwarderName);
    this.process?.end();
    this.forwarder = undefined;
    this.node.cutPower(`fate ${this.deaths}`);
  }

  /** Admits a pod with one device, for KERNEL by default. */
  async startPod(name: string, changes: Partial<ClientOptions> = {}): Promise<SimulatedPod> {
    const { node, peers } = this;
    const allocation = await peers.kubelet.allocate({ pod: name, resource: RESOURCE });
    node.cgroups.addPod(allocation.podUid);
    const netns = node.links.createNetns();
    this.#undo.push(`namespace of ${name}`, () => netns.close());
    const pod = { name, allocation, netns };
    return { ...pod, client: this.#clientIn(pod, name, changes) };
  }

  /** The pod's client is started again and knows no connection; the Close of the one before may still be under way. */
  restartClient(pod: SimulatedPod, changes: Partial<ClientOptions> = {}): SimulatedPod {
    return { ...pod, client: this.#clientIn(pod, `${pod.name}-again`, changes) };
  }

  #clientIn(
    { allocation, netns }: Omit<SimulatedPod, "client">,
    name: string,
    changes: Partial<ClientOptions>,
  ): Client {
    const tokenID = allocation.envs[`NSM_SRIOV_TOKENS_${RESOURCE}`] ?? "";
    const ways = {
      KERNEL: { netns, parameters: { name: "nsm-1", tokenID } },
      VFIO: { parameters: { cgroupDir: `kubepods/pod${allocation.podUid}/app`, tokenID } },
      NOOP: {},
    };
    const client = this.peers.client(name, { ...ways[changes.mechanism ?? "KERNEL"], ...changes });
    this.#undo.push(`client of ${name}`, () => client.hangUp());
    return client;
  }

  /** The pod ends, and its client closes no connection. */
  async endPod({ name, allocation, client, netns }: SimulatedPod): Promise<void> {
    await client.hangUp();
    netns.close();
    this.node.cgroups.removePod(allocation.podUid);
    this.peers.kubelet.free(name);
  }

  /** A process of the pod opens the VFIO group of its VF. The answer closes it. */
  openVfio({ allocation, client }: SimulatedPod): () => void {
    const { machine, cgroups } = this.node;
    const { iommuGroup, pciAddress = "" } = client.connection?.mechanism?.parameters ?? {};
    const device = machine.vfioDeviceOf(pciAddress);
    if (!device) throw new Error(`${pciAddress} has no VFIO group to open`);
    const close = machine.openGroup(Number(iommuGroup));
    const stopUse = cgroups.use(allocation.podUid, device);
    return () => {
      close();
      stopUse();
    };
  }

  /** Resolves when kubelet has so many healthy devices. */
  async offers(count: number): Promise<void> {
    await this.peers.kubelet.until(RESOURCE, (devices) => devices.filter(({ healthy }) => healthy).length === count);
  }

  healthyDevices(resource: string): number {
    const devices = this.peers.kubelet.devices.value?.get(resource) ?? [];
    return devices.filter(({ healthy }) => healthy).length;
  }

  /** Looks again every now and then until nothing is wrong. @throws with what was wrong last. */
  async until(observe: () => Promise<readonly string[]>, limitMs = 300_000): Promise<void> {
    const { clock } = this.node;
    const endMs = clock.monotonicMs() + limitMs;
    for (;;) {
      const wrong = await observe();
      if (wrong.length === 0) return;
      if (clock.monotonicMs() > endMs) throw new Error(wrong.join("; "));
      await clock.sleep(1_000);
    }
  }

  /** Ends everything in its order. Answers what is still open. */
  async stop(): Promise<readonly string[]> {
    const left: string[] = [];
    await this.stopForwarder();
    if (this.process?.isOver === false) left.push(...this.process.left.map((what) => `${what} of the forwarder`));
    await this.#undo.unwind((what, error) => left.push(`${what}: ${String(error)}`));
    const open = openHandles();
    // What the dead have open the kernel would close.
    if (this.deaths === 0 && open.length > 0) left.push(`${open.length} passed descriptors`);
    for (const number of open) Fd.own(number).close();
    const real = [...this.#realWork.seen].map(
      (kind) => `${kind} of this machine, for which simulated time does not wait`,
    );
    return [...left, ...real];
  }

  #onStep(process: SimulatedProcess, step: string, when: "before" | "after"): void {
    this.node.trace.say("step", `${step} ${when}`);
    this.#realWork.observe();
    if (when === "after") this.#checkOwners(step);
    if (!process.isOver && this.process === process && this.diesAt?.(step, when)) this.kill();
  }

  /** No VF has two owners, none that is free has one, and who is to keep its VF has it. */
  #checkOwners(step: string): void {
    for (const pod of this.keeping) {
      const vf = pod.client.connection?.mechanism?.parameters["pciAddress"] ?? "";
      if (!isOwner(pod, this.node, vf)) this.violations.push(`${pod.name} has not its ${vf} after ${step}`);
    }
    for (const vf of this.node.vfs) {
      const owners = ownersOf(this.node, vf);
      if (owners.length > 1) this.violations.push(`${vf} has the owners ${owners.join(" and ")} after ${step}`);
      const record = this.forwarder?.node.inventory.get(vf);
      // The next forwarder has no namespace to take a link out of: its driver does that, and until then no client gets the VF.
      const isLeft = record !== undefined && conditionOf(record, "being-cleaned") !== undefined;
      const isFree = record !== undefined && record.connectionId === undefined && !isLeft;
      if (isFree && owners.length > 0) this.violations.push(`${vf} is free and ${owners.join()} has it after ${step}`);
    }
  }

  get #settings(): ForwarderSettings {
    return {
      name: this.forwarderName,
      networkServices: ["sriovns", "forwarder"],
      labels: { p2p: "true" },
      connectTo: this.peers.nsmgr.url,
      dialTimeoutMs: 10_000,
      maxTokenLifetimeMs: TOKEN_LIFETIME_MS,
      registryClientPolicies: ["common", "registry", "client"].map((kind) => `etc/nsm/opa/${kind}/.*.rego`),
      devicePluginPath: PLUGIN_FOLDER,
      podResourcesPath: POD_RESOURCES_FOLDER,
      resourcePollTimeoutMs: 30_000,
      reconcileIntervalMs: 5_000,
      spiffeEndpointSocket: this.peers.workload.url,
      adminListenOn: undefined,
      statePath: STATE_FOLDER,
    };
  }
}
