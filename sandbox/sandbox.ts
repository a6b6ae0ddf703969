import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openDeviceAccess } from "../src/access/index.ts";
import { type Clock, systemClock, UndoStack } from "../src/async/index.ts";
import type { Forwarder, ForwarderSettings } from "../src/forwarder.ts";
import type { Host } from "../src/node/index.ts";
import { parsePfConfig } from "../src/pci/index.ts";
import { type Log, type Metrics, silentLog, type Tracer } from "../src/telemetry/index.ts";
import { Spire, type SpireOptions } from "./identity/spire.ts";
import { WorkloadSocket } from "./identity/workload-socket.ts";
import { Kubelet, type PodAllocation } from "./kubelet/kubelet.ts";
import { type Machine, type MachineOptions, startMachine } from "./machine/machine.ts";
import { PretendConfigFile } from "./machine/pretend-config-file.ts";
import { ChangeWatch } from "./nic/change-watch.ts";
import { type Actor, createActor } from "./nsm/actor.ts";
import { Client, type ClientOptions } from "./nsm/client.ts";
import { Endpoint, type EndpointOptions, macPerConnection } from "./nsm/endpoint.ts";
import { Nsmgr } from "./nsm/nsmgr.ts";
import { Container } from "./pod/container.ts";
import { Pod } from "./pod/pod.ts";
import type { PodCgroups } from "./pod/pod-cgroups.ts";
import { startSandboxForwarder } from "./start-forwarder.ts";

export interface SandboxOptions {
  readonly machine?: Omit<MachineOptions, "clock">;
  /** In place of the machine's own list of physical functions. */
  readonly pfConfigText?: string;
  /** What differs from the sandbox's own settings of the forwarder. */
  readonly settings?: Partial<ForwarderSettings>;
  readonly endpoint?: Partial<Pick<EndpointOptions, "prefixes" | "context" | "labels">>;
  readonly spire?: Omit<SpireOptions, "clock">;
  /** Registrations expire after this, in ms; a minute by default. */
  readonly registrationExpiryMs?: number;
  /** Real cgroups for the pods, which VFIO takes; those of pods end with the sandbox, and the caller closes the tree. */
  readonly cgroups?: PodCgroups | undefined;
  /** Stands between the machine and each forwarder that is started: to count what it does, and to stop it. */
  readonly host?: (host: Host) => Host;
  /** Of each call of a pod's client: a machine that is much slower needs more than the client's own limit. */
  readonly callTimeoutMs?: number;
  /** Of all forwarders that are started; each has its own by default. */
  readonly metrics?: Metrics;
  /** Follows the forwarder's calls. */
  readonly tracer?: Tracer;
  /** Of the forwarder; not read by default. */
  readonly log?: Log;
  /** Of the peers; the same as the forwarder's by default. */
  readonly peerLog?: Log;
  /** The machine's by default. */
  readonly clock?: Clock;
}

type CompleteOptions = SandboxOptions & Required<Pick<SandboxOptions, "log" | "clock">>;

/** A pod that has got a virtual function's token from kubelet, with its NSM client. */
export interface SandboxPod {
  readonly name: string;
  readonly allocation: PodAllocation;
  /** The token that its client sends. */
  readonly tokenId: string;
  readonly pod: Pod;
  readonly client: Client;
}

/** The resource that pods of the sandbox ask for. */
export const SANDBOX_RESOURCE = "worker.domain/10G";
/** The network service that the endpoint serves. */
export const SANDBOX_SERVICE = "sriov-kernel2noop";
/** The forwarder's name in paths and in the registry. */
export const SANDBOX_FORWARDER = "forwarder-1";

/** The VLAN that the endpoint is in on the wire. */
export const SANDBOX_VLAN = 1044;

/** Where no cgroup is: VFIO cannot be given then. */
const NO_CGROUPS = "/nonexistent";
const ENDPOINT_PREFIXES = ["172.16.1.0/24", "2001:db8::/120"];

/** A test tells itself when a write that hangs may continue; the limit on it must not come first on a busy machine. */
const SLOWNESS = 12;

/** A whole node in one process: machine, kubelet, SPIRE agent, NSMgr, endpoint, pods, and the forwarder under test. */
export class Sandbox {
  readonly machine: Machine;
  readonly spire: Spire;
  readonly workload: WorkloadSocket;
  readonly nsmgr: Nsmgr;
  readonly kubelet: Kubelet;
  readonly endpoint: Endpoint;
  /** What the forwarder changes on the node, seen from outside. */
  readonly changes = new ChangeWatch();
  /** Sockets and the forwarder's state. Short: a socket path has at most 107 bytes. */
  readonly folder: string;
  /** The list of physical functions, as the forwarder finds it. */
  readonly pfConfigFile: PretendConfigFile;
  readonly #options: CompleteOptions;
  readonly #undo: UndoStack;
  readonly #podUids: string[] = [];
  #forwarderName = SANDBOX_FORWARDER;
  #running: { readonly forwarder: Promise<Forwarder>; readonly abort: AbortController } | undefined;
  readonly #containers: Container[];

  private constructor(
    options: CompleteOptions,
    { machine, containers }: { readonly machine: Machine; readonly containers: Container[] },
    folder: string,
    undo: UndoStack,
  ) {
    const { clock, log, peerLog = log } = options;
    const common = { log: peerLog, clock };
    this.#options = options;
    this.#undo = undo;
    this.#containers = containers;
    this.folder = folder;
    this.machine = machine;
    this.pfConfigFile = new PretendConfigFile(options.pfConfigText ?? machine.configText);
    this.spire = new Spire({ ...options.spire, clock });
    const spiffeIds = [this.spire.idOf("forwarder")];
    this.workload = new WorkloadSocket({ ...common, spire: this.spire, socketPath: `${folder}/agent.sock`, spiffeIds });
    this.nsmgr = new Nsmgr({
      ...common,
      name: "nsmgr-1",
      socketPath: `${folder}/nsm.sock`,
      actor: this.actor("nsmgr"),
      ...(options.registrationExpiryMs && { expiryMs: options.registrationExpiryMs }),
    });
    this.kubelet = new Kubelet({ ...common, folder: `${folder}/plugins`, podResourcesFolder: `${folder}/pods` });
    this.endpoint = new Endpoint({
      ...common,
      name: "nse-1",
      networkService: SANDBOX_SERVICE,
      prefixes: ENDPOINT_PREFIXES,
      socketPath: `${folder}/nse.sock`,
      registryUrl: this.nsmgr.url,
      actor: this.actor("nse"),
      context: macPerConnection(SANDBOX_VLAN),
      ...options.endpoint,
    });
  }

  /** Starts everything but the forwarder. What was started is taken down again when something fails. */
  static async start(given: SandboxOptions): Promise<Sandbox> {
    const options = { log: silentLog, clock: systemClock, ...given };
    const undo = new UndoStack();
    try {
      const containers: Container[] = [];
      const desired = withHolders(options.machine ?? {}, () => containers.map(({ pid }) => pid));
      const machine = await startMachine({ slowness: SLOWNESS, ...desired, clock: options.clock });
      undo.push("machine", () => machine.stop());
      const folder = mkdtempSync(join(tmpdir(), "nsm-sandbox-"));
      undo.push("folder", () => rmSync(folder, { recursive: true, force: true }));
      const sandbox = new Sandbox(options, { machine, containers }, folder, undo);
      await sandbox.#startPeers();
      return sandbox;
    } catch (error) {
      await undo.unwind(() => {}); // the first failure is the one to show
      throw error;
    }
  }

  /** Someone on this node with an identity of the sandbox's trust domain. */
  actor(path: string): Actor {
    return createActor({ spire: this.spire, spiffeId: this.spire.idOf(path), clock: this.#options.clock });
  }

  /** For NSM_CGROUP_PATH. */
  get cgroupPath(): string {
    return this.#options.cgroups?.path ?? NO_CGROUPS;
  }

  get metrics(): Metrics | undefined {
    return this.#options.metrics;
  }

  /** The next forwarder is a pod of this name, as the DaemonSet makes one at each upgrade: with another name, and another SPIFFE ID. */
  upgradeTo(name: string): void {
    this.#forwarderName = name;
    this.workload.issue(this.spire.idOf(`ns/nsm-system/pod/${name}`));
  }

  /** Starts the forwarder, in this process, against the sandbox. */
  async startForwarder(): Promise<Forwarder> {
    if (this.#running !== undefined) throw new Error("Cannot start the forwarder: it runs already");
    const { machine, changes, cgroupPath } = this;
    const { host: between = (same: Host) => same } = this.#options;
    const host = between({
      devices: changes.watchFiles("devices", machine.devices),
      drivers: changes.watchFiles("drivers", machine.drivers),
      vfio: machine.vfio,
      uevents: machine.uevents,
      netns: machine.netns,
      queryEswitchMode: (pf) => machine.queryEswitchMode(pf),
      openRtnl: (netns) => machine.openRtnl(netns),
      linkOwnerOf: machine.linkOwnerOf,
      linkSettings: machine.linkSettings,
      pfLink: machine.pfLink,
      locks: machine.locks,
      disk: machine.disk,
      random: machine.random,
      openFolder: machine.openFolder,
      watchFolder: machine.watchFolder,
      netnsOf: machine.netnsOf,
      unixListeners: machine.unixListeners,
      pfPort: (pf: { readonly address: string }) => changes.watchPort(pf.address, machine.pfPort(pf)),
      openAccess: (parts: Parameters<Host["openAccess"]>[0]) => openDeviceAccess({ ...parts, cgroupPath }),
    });
    const { clock, log, metrics, tracer } = this.#options;
    const abort = new AbortController();
    const pfConfig = parsePfConfig(this.pfConfigFile.text, "pci.config");
    const forwarder = startSandboxForwarder({
      settings: this.forwarderSettings,
      pfConfig,
      pfConfigFile: this.pfConfigFile,
      host,
      ...(metrics && { metrics }),
      ...(tracer && { tracer }),
      clock,
      log,
      signal: abort.signal,
    });
    this.#running = { forwarder, abort };
    return forwarder;
  }

  /** Stops the forwarder as SIGTERM does, also one that is still starting; connections stay. */
  async stopForwarder(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    running?.abort.abort(new Error("the forwarder is stopped"));
    const forwarder = await running?.forwarder.catch(() => undefined); // its starter got the failure
    await forwarder?.stop();
  }

  /** Admits a pod that asks for one device: kubelet allocates it, the pod gets a network namespace and an NSM client. */
  async startPod(name: string, resource = SANDBOX_RESOURCE): Promise<SandboxPod> {
    const allocation = await this.kubelet.allocate({ pod: name, resource });
    const tokenId = allocation.envs[`NSM_SRIOV_TOKENS_${resource}`] ?? "";
    const pod = new Pod(name);
    this.#podUids.push(allocation.podUid);
    this.#options.cgroups?.addPod(allocation.podUid);
    const client = this.clientOf({ name, pod, tokenId });
    this.#undo.push(`pod ${name}`, async () => {
      await client.hangUp();
      pod.close();
    });
    return { name, allocation, tokenId, pod, client };
  }

  /** Admits a pod that asks for VFIO: its client runs in a container, and sends the cgroup that it finds itself in. */
  async startVfioPod(name: string): Promise<SandboxPod & { readonly container: Container }> {
    const started = await this.startPod(name);
    const container = await this.startContainer(started);
    const cgroupDir = await container.cgroupDir();
    // Without version 1 a client does not know its cgroup.
    const parameters = { tokenID: started.tokenId, cgroupDir: cgroupDir === "*" ? "" : cgroupDir };
    const client = this.clientOf(started, { mechanism: "VFIO", parameters });
    this.#undo.push(`VFIO client of ${name}`, () => client.hangUp());
    return { ...started, container, client };
  }

  /** Starts a container of the pod, in a cgroup of its own. @throws without cgroups. */
  async startContainer({ name, allocation }: SandboxPod, container = "app"): Promise<Container> {
    const { cgroups } = this.#options;
    if (!cgroups) throw new Error("Cannot start a container: the sandbox has no cgroups");
    const cgroup = cgroups.addContainer(allocation.podUid, container);
    const folder = `${this.folder}/${name}-${container}`;
    const started = await Container.start({ cgroup, cgroupRoot: cgroups.path, folder });
    this.#containers.push(started);
    this.#undo.push(`container ${container} of ${name}`, () => started.kill());
    return started;
  }

  /**
   * Someone of the trust domain who calls the forwarder as an NSMgr does, with a connection of its own. It has a socket URL
   * from the registry, as any peer can get it.
   */
  directClient(name: string, changes: Partial<ClientOptions> = {}): Client {
    const entry = this.nsmgr.registry.endpoints.get(SANDBOX_FORWARDER);
    if (entry === undefined) throw new Error("Cannot call the forwarder: it is not registered");
    const client = new Client({
      ...this.#clientCommon,
      name,
      actor: this.actor(name),
      target: entry.endpoint.url,
      manager: { name: `${name}-manager`, actor: this.actor(`${name}-manager`) },
      networkService: SANDBOX_SERVICE,
      ...changes,
    });
    this.#undo.push(`client ${name}`, () => client.hangUp());
    return client;
  }

  /** Takes everything down: forwarder, peers, links, namespaces, sockets and files. */
  async stop(): Promise<void> {
    const failures: string[] = [];
    await this.#undo.unwind((what, error) => failures.push(`${what}: ${String(error)}`));
    if (failures.length > 0) throw new Error(`Cannot take the sandbox down: ${failures.join("; ")}`);
  }

  async #startPeers(): Promise<void> {
    const { folder, spire, workload, nsmgr, kubelet, endpoint } = this;
    for (const name of ["plugins", "state"]) mkdirSync(`${folder}/${name}`);
    this.#undo.push("cgroups of the pods", () => this.#removePodCgroups()); // last: the forwarder would see its pods end
    this.#undo.push("spire", () => spire.stop());
    this.#undo.push("workload socket", () => workload.close());
    await workload.start();
    this.#undo.push("kubelet", () => kubelet.stop());
    await kubelet.start();
    this.#undo.push("nsmgr", () => nsmgr.close());
    await nsmgr.start();
    this.#undo.push("endpoint", () => endpoint.close());
    await endpoint.start();
    if (this.#options.machine?.realLinks === true) await this.#connectEndpoint();
    this.#undo.push("changes", () => this.changes.close());
    this.#undo.push("forwarder", () => this.stopForwarder());
  }

  async #removePodCgroups(): Promise<void> {
    for (const uid of this.#podUids) await this.#options.cgroups?.removePod(uid);
  }

  /** Puts the endpoint's own addresses at the far end of the wire, in its VLAN: what a pod's ping reaches. */
  async #connectEndpoint(): Promise<void> {
    const { endpoint, machine } = this;
    const pod = new Pod(endpoint.name);
    this.#undo.push("endpoint's pod", () => pod.close());
    await machine.connect({ netns: pod.netns, name: "wire", vlan: SANDBOX_VLAN });
    const prefixes = this.#options.endpoint?.prefixes ?? ENDPOINT_PREFIXES;
    await pod.takeLink(
      "wire",
      endpoint.ipams.map(({ own }) => own),
      prefixes,
    );
  }

  /**
   * What the node's NSM client does with the token of its environment: sriov-behaviour §3. The caller hangs up.
   */
  clientOf(
    { name, pod, tokenId }: Pick<SandboxPod, "name" | "pod" | "tokenId">,
    changes: Partial<ClientOptions> = {},
  ): Client {
    const [serviceDomain = ""] = SANDBOX_RESOURCE.split("/");
    return new Client({
      ...this.#clientCommon,
      name,
      actor: this.actor(`ns/default/pod/${name}`),
      target: this.nsmgr.url,
      networkService: SANDBOX_SERVICE,
      labels: { serviceDomain },
      netns: pod.netns,
      parameters: { name: "nsm-1", tokenID: tokenId },
      ...changes,
    });
  }

  /** The pod's client as one that plays the manager too: only it has the pod's namespace, and it hears the forwarder's own codes. */
  directClientOf(
    pod: Pick<SandboxPod, "name" | "pod" | "tokenId">,
    target: string,
    changes: Partial<ClientOptions> = {},
  ): Client {
    const manager = { name: this.nsmgr.name, actor: this.actor("nsmgr") };
    return this.clientOf(pod, { log: silentLog, clock: systemClock, labels: {}, target, manager, ...changes });
  }

  get #clientCommon(): Pick<ClientOptions, "log" | "clock" | "timeoutMs"> {
    const { log, peerLog = log, clock, callTimeoutMs: timeoutMs } = this.#options;
    return { log: peerLog, clock, ...(timeoutMs !== undefined && { timeoutMs }) };
  }

  /** How the forwarder finds the sandbox; for one that is started elsewhere, too. */
  get forwarderSettings(): ForwarderSettings {
    const { folder } = this;
    return {
      name: this.#forwarderName,
      networkServices: ["sriovns", "forwarder"],
      labels: { p2p: "true" },
      connectTo: this.nsmgr.url,
      dialTimeoutMs: 60_000,
      maxTokenLifetimeMs: 600_000,
      registryClientPolicies: ["common", "registry", "client"].map((kind) => `etc/nsm/opa/${kind}/.*.rego`),
      devicePluginPath: `${folder}/plugins/`,
      podResourcesPath: `${folder}/pods/`,
      resourcePollTimeoutMs: 30_000,
      reconcileIntervalMs: 5_000,
      spiffeEndpointSocket: this.workload.url,
      adminListenOn: { host: "127.0.0.1", port: 0 },
      statePath: `${folder}/state`,
      ...this.#options.settings,
    };
  }
}

/** The processes of this sandbox's containers can have a device open: those of another one have the same names and numbers. */
function withHolders(machine: Omit<MachineOptions, "clock">, processes: () => readonly number[]) {
  const { vfioStandIns } = machine;
  return vfioStandIns ? { ...machine, vfioStandIns: { processes, ...vfioStandIns } } : machine;
}
