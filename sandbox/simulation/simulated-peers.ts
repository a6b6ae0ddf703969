// The peers of the sandbox, on the simulated node: SPIRE agent, NSMgr with its registry, kubelet, endpoints, clients.
import type { Clock, UndoStack } from "../../src/async/index.ts";
import type { Transport } from "../../src/rpc/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { Spire } from "../identity/spire.ts";
import { WorkloadSocket } from "../identity/workload-socket.ts";
import { Kubelet } from "../kubelet/kubelet.ts";
import { type Actor, createActor } from "../nsm/actor.ts";
import { Client, type ClientOptions } from "../nsm/client.ts";
import { Endpoint } from "../nsm/endpoint.ts";
import { Nsmgr } from "../nsm/nsmgr.ts";
import { verifyTokenAtOnce } from "../nsm/peer-token.ts";
import type { MemoryFolders } from "./memory-folders.ts";
import type { Seed } from "./seed.ts";

/** Of the tokens of all peers, and so of a connection that is not refreshed. */
export const TOKEN_LIFETIME_MS = 120_000;
export const PLUGIN_FOLDER = "/sim/plugins";
export const POD_RESOURCES_FOLDER = "/sim/pods";
const SERVICE = "sriov-kernel2noop";
const PREFIXES = ["172.16.1.0/24", "2001:db8::/120"];
/** What an endpoint wants of each client beside its addresses: all other than a VF has by itself. */
const ANSWER = { mtu: 1400, vlanTag: 1044, srcRoutes: [{ prefix: "10.96.0.0/12" }, { prefix: "fd00:96::/64" }] };

export interface PeersParts {
  readonly clock: Clock;
  readonly net: Transport;
  readonly folders: MemoryFolders;
}

export class SimulatedPeers {
  readonly spire: Spire;
  readonly workload: WorkloadSocket;
  readonly nsmgr: Nsmgr;
  readonly kubelet: Kubelet;
  readonly endpoints: readonly Endpoint[];
  readonly #parts: PeersParts;
  readonly #seed: Seed;

  constructor(seed: Seed, parts: PeersParts, endpoints: readonly string[]) {
    const { clock, net: transport, folders: files } = parts;
    this.#parts = parts;
    this.#seed = seed;
    const common = { transport, newId: seed.random("ids").uuid, log: silentLog, clock };
    const spire = new Spire({ clock });
    this.spire = spire;
    const spiffeIds = [spire.idOf("forwarder")];
    this.workload = new WorkloadSocket({ ...common, spire, socketPath: "/sim/agent.sock", spiffeIds });
    this.nsmgr = new Nsmgr({ ...common, name: "nsmgr-1", socketPath: "/sim/nsm.sock", actor: this.#actor("nsmgr") });
    const podResourcesFolder = POD_RESOURCES_FOLDER;
    this.kubelet = new Kubelet({ ...common, files, folder: PLUGIN_FOLDER, podResourcesFolder });
    this.endpoints = endpoints.map(
      (name) =>
        new Endpoint({
          ...common,
          name,
          networkService: SERVICE,
          prefixes: PREFIXES,
          socketPath: `/sim/${name}.sock`,
          registryUrl: this.nsmgr.url,
          actor: this.#actor(name),
          context: ({ id }) => {
            const { vlanTag, ...answer } = ANSWER;
            return { ...answer, ethernet: { srcMac: macOf(id), vlanTag } };
          },
        }),
    );
  }

  async start(undo: UndoStack): Promise<void> {
    const { spire, workload, nsmgr, kubelet, endpoints } = this;
    undo.push("spire", () => spire.stop());
    undo.push("workload socket", () => workload.close());
    await workload.start();
    undo.push("kubelet", () => kubelet.stop());
    await kubelet.start();
    undo.push("nsmgr", () => nsmgr.close());
    await nsmgr.start();
    for (const endpoint of endpoints) {
      undo.push(endpoint.name, () => endpoint.close());
      await endpoint.start();
    }
  }

  /** The NSM client of a pod. */
  client(name: string, options: Partial<ClientOptions>): Client {
    return new Client({
      transport: this.#parts.net,
      newId: this.#seed.random(`ids of ${name}`).uuid,
      log: silentLog,
      clock: this.#parts.clock,
      name,
      actor: this.#actor(`ns/default/pod/${name}`),
      target: this.nsmgr.url,
      networkService: SERVICE,
      labels: { serviceDomain: "worker.domain" },
      timeoutMs: 30_000,
      ...options,
    });
  }

  #actor(path: string): Actor {
    const { spire } = this;
    const { clock } = this.#parts;
    const tokens = { tokenLifetimeMs: TOKEN_LIFETIME_MS, verifyToken: verifyTokenAtOnce };
    return createActor({ spire, spiffeId: spire.idOf(path), clock, ...tokens });
  }
}

/** Each connection has another one, and the same each time. */
function macOf(connectionId: string): string {
  return `0a:${connectionId.replaceAll("-", "").slice(0, 10).match(/../g)?.join(":")}`;
}
