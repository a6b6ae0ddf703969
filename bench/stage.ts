import type { Kubelet } from "../sandbox/kubelet/kubelet.ts";
import type { Actor } from "../sandbox/nsm/actor.ts";
import { Client } from "../sandbox/nsm/client.ts";
import type { ContextOf } from "../sandbox/nsm/endpoint.ts";
import { Pod } from "../sandbox/pod/pod.ts";
import { SANDBOX_FORWARDER, SANDBOX_RESOURCE, SANDBOX_SERVICE, Sandbox } from "../sandbox/sandbox.ts";
import { systemClock, UndoStack } from "../src/async/index.ts";
import { RpcClient } from "../src/rpc/index.ts";
import { silentLog } from "../src/telemetry/index.ts";
import { NodeProcess, type NodeProcessOptions } from "./node.ts";
import type { Started } from "./node-messages.ts";

/** Addresses for every pod of the largest node. */
const PREFIXES = ["172.16.0.0/16", "2001:db8::/112"];
const PFS = 2;
const MANAGER = "nsmgr-1";

export interface StageOptions extends NodeProcessOptions {
  /** Virtual functions of the node, an even number. */
  readonly vfs: number;
  readonly realLinks: boolean;
  /** Whether each VF has 6 resource names instead of 2. */
  readonly hasManyNames?: boolean;
  /** From the bind of a VF to its network device; 0 by default. */
  readonly netdevDelayMs?: number;
}

/** How the forwarder came up. */
export interface StartFigures extends Started {
  /** From the call of the forwarder's start until kubelet had the whole list of one resource. */
  readonly toKubeletMs: number;
}

/** A pod whose calls reach the forwarder as its manager's: over the one connection that a manager keeps to it. */
export interface BenchPod {
  readonly name: string;
  readonly client: Client;
}

/** One node for measuring: peers and pods here, card and forwarder in a process of their own. */
export class Stage {
  readonly node: NodeProcess;
  readonly vfs: number;
  readonly #sandbox: Sandbox;
  readonly #manager: Actor;
  readonly #rpc: RpcClient;
  readonly #undo: UndoStack;
  readonly #pods: BenchPod[] = [];
  #start: StartFigures | undefined;

  private constructor(options: StageOptions, sandbox: Sandbox, undo: UndoStack) {
    this.vfs = options.vfs;
    this.#sandbox = sandbox;
    this.#undo = undo;
    this.#manager = sandbox.actor("nsmgr");
    const { tls, headers: credentials } = this.#manager;
    const common = { log: silentLog, clock: systemClock };
    this.#rpc = new RpcClient({ ...common, tls, credentials, dialTimeoutMs: 5_000, idleMs: 600_000 });
    this.node = new NodeProcess(options);
    undo.push("connection of the manager", () => this.#rpc.close());
    undo.push("process of the forwarder", () => this.node.stop());
  }

  /** Starts everything; answers when kubelet has the whole list. */
  static async open(options: StageOptions): Promise<Stage> {
    const undo = new UndoStack();
    try {
      const sandbox = await Sandbox.start({
        machine: { pfs: 0 },
        endpoint: { prefixes: PREFIXES, context: macOfEach() },
        log: silentLog,
        clock: systemClock,
      });
      undo.push("sandbox", () => sandbox.stop());
      const stage = new Stage(options, sandbox, undo);
      await stage.#startNode(options);
      return stage;
    } catch (error) {
      await undo.unwind(() => {}); // the first failure is the one to show
      throw error;
    }
  }

  async #startNode({ realLinks, hasManyNames = false, netdevDelayMs = 0 }: StageOptions): Promise<void> {
    const settings = this.#sandbox.forwarderSettings;
    const listed = this.#sandbox.kubelet
      .until(SANDBOX_RESOURCE, (devices) => devices.length === this.vfs)
      .then(() => Number(process.hrtime.bigint()) / 1e6);
    const machine = { pfs: PFS, vfsPerPf: this.vfs / PFS, realLinks, netdevDelayMs };
    const question = { kind: "start", ...machine, hasManyNames, settings } as const;
    const started = await this.node.query<"start">(question);
    this.#start = { ...started, toKubeletMs: (await listed) - started.calledAtMs };
  }

  get start(): StartFigures {
    if (!this.#start) throw new Error("The stage is not open yet");
    return this.#start;
  }

  /** The first so many pods, started where they are not yet. Each holds a device for as long as the stage is open. */
  async pods(count: number): Promise<readonly BenchPod[]> {
    while (this.#pods.length < count) this.#pods.push(await this.#startPod(`pod-${this.#pods.length}`));
    return this.#pods.slice(0, count);
  }

  async #startPod(name: string): Promise<BenchPod> {
    const { kubelet, nsmgr } = this.#sandbox;
    const { envs } = await kubelet.allocate({ pod: name, resource: SANDBOX_RESOURCE });
    const target = nsmgr.registry.endpoints.get(SANDBOX_FORWARDER)?.endpoint.url;
    if (target === undefined) throw new Error(`Cannot start ${name}: the forwarder is not registered`);
    const pod = new Pod(name);
    const [serviceDomain = ""] = SANDBOX_RESOURCE.split("/");
    const client = new Client({
      log: silentLog,
      clock: systemClock,
      name,
      actor: this.#sandbox.actor(`ns/default/pod/${name}`),
      target,
      manager: { name: MANAGER, actor: this.#manager },
      networkService: SANDBOX_SERVICE,
      labels: { serviceDomain },
      netns: pod.netns,
      parameters: { name: "nsm-1", tokenID: envs[`NSM_SRIOV_TOKENS_${SANDBOX_RESOURCE}`] ?? "" },
      rpc: this.#rpc,
    });
    this.#undo.push(`pod ${name}`, async () => {
      await client.hangUp();
      pod.close();
    });
    return { name, client };
  }

  get kubelet(): Kubelet {
    return this.#sandbox.kubelet;
  }

  /** What peers have written down for tests; it is not read here, and it grows with each call. */
  forgetCalls(): void {
    this.#sandbox.endpoint.requests.length = 0;
    this.#sandbox.endpoint.closes.length = 0;
  }

  /** @throws when something could not be taken down. */
  async close(): Promise<void> {
    const failures: string[] = [];
    await this.#undo.unwind((what, error) => failures.push(`${what}: ${String(error)}`));
    if (failures.length > 0) throw new Error(`Cannot take the node down: ${failures.join("; ")}`);
  }
}

/** A MAC of its own for each connection. No VLAN: on the pretend card that is a move between bridges, which no card does. */
function macOfEach(): ContextOf {
  const macs = new Map<string, string>();
  return ({ id }) => {
    const number = (macs.size + 1).toString(16).padStart(6, "0");
    const srcMac = macs.get(id) ?? `0a:55:44:${number.match(/../g)?.join(":")}`;
    macs.set(id, srcMac);
    return { ethernet: { srcMac } };
  };
}
