// The node as operators are shown it: one view of what the modules know, made again at each read.
import type { ConnectionView, NodeView, NodeViewSource, PfView, ResourceView, VfView } from "../admin/index.ts";
import type { Clock } from "../async/index.ts";
import type { Identity } from "../identity/index.ts";
import { describeCondition, effectOf, labelOf, shortToken, shortTokens, type VfRecord } from "../inventory/index.ts";
import type { Node } from "../node/index.ts";
import { type PciAddress, resourceName } from "../pci/index.ts";
import { type Health, type Log, Troubles, tapLog } from "../telemetry/index.ts";
import { version } from "../version.ts";
import type { NsmServer } from "./nsm-server.ts";

/** What is known later than the node itself. */
interface LaterParts {
  readonly identity: Identity;
  readonly nsm: Pick<NsmServer, "connections">;
  /** "namespace/name" of the pod that has the token, as far as kubelet has said. */
  podOf(tokenId: string): string | undefined;
}

interface ShownNodeOptions {
  readonly name: string;
  readonly health: Health;
  readonly clock: Clock;
  readonly log: Log;
}

/** The source of the status page. Parts that are started later are made known as they come. */
export class ShownNode implements NodeViewSource {
  /** To be used in place of the log that was given: what it logs is a change to show, and troubles are kept. */
  readonly log: Log;
  readonly #options: ShownNodeOptions;
  readonly #troubles: Troubles;
  readonly #startedMs: number;
  readonly #listeners = new Set<() => void>();
  #node: Pick<Node, "inventory" | "survey" | "hostUse"> | undefined;
  #later: Partial<LaterParts> = {};

  constructor(options: ShownNodeOptions) {
    this.#options = options;
    this.#startedMs = options.clock.now();
    this.#troubles = new Troubles(options.clock);
    options.health.onChange(() => this.changed());
    this.log = tapLog(options.log, (level, event, fields) => {
      this.#troubles.hear(level, event, fields);
      this.changed();
    });
  }

  show(node: Pick<Node, "inventory" | "survey" | "hostUse">): void {
    this.#node = node;
    node.inventory.onChange(() => this.changed());
  }

  learn(more: Partial<LaterParts>): void {
    this.#later = { ...this.#later, ...more };
    this.changed();
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  view(): NodeView {
    const { name, health, clock } = this.#options;
    const svid = this.#later.identity?.current.value;
    const vfs = this.#node?.inventory.snapshot() ?? [];
    return {
      name,
      version,
      startedMs: this.#startedMs,
      seenMs: clock.now(),
      isReady: health.ready.value === true,
      conditions: health.conditions().map((one) => ({ ...one, sentence: shortTokens(one.sentence) })),
      identity: svid && { spiffeId: svid.id, expiresMs: svid.notAfterMs },
      pfs: this.#pfs(vfs),
      connections: this.#connections(vfs),
      resources: this.#resources(),
      troubles: this.#troubles.list.map((one) => ({ ...one, text: shortTokens(one.text) })),
    };
  }

  get identity(): Identity | undefined {
    return this.#later.identity;
  }

  /** To be called for what neither the log nor the modules report. */
  changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /** The configured ones in the order of the file, then those that are managed no more and still have VFs out. */
  #pfs(vfs: readonly VfRecord[]): readonly PfView[] {
    const configured = this.#node?.survey.config.physicalFunctions.map(({ address }) => address) ?? [];
    return [...new Set([...configured, ...vfs.map(({ pf }) => pf)])].map((address) => this.#pf(address, vfs));
  }

  #pf(address: PciAddress, vfs: readonly VfRecord[]): PfView {
    const survey = this.#node?.survey;
    const seen = survey?.pfs.get(address);
    const entry = survey?.config.physicalFunctions.find((one) => one.address === address);
    const resources = entry?.serviceDomains.flatMap((domain) =>
      entry.capabilities.map((capability) => resourceName(domain, capability)),
    );
    const own = vfs.filter(({ pf }) => pf === address);
    return {
      address,
      ifname: seen?.ifname,
      driver: seen?.driver,
      numaNode: seen?.numaNode,
      totalVfs: seen?.totalVfs,
      carrier: survey?.carrierOf(address) ?? "unknown",
      hostUse: this.#node?.hostUse.ofPf(address),
      resources: resources ?? [],
      problem: survey?.problemOf(address),
      vfs: own.toSorted((a, b) => a.index - b.index).map((vf) => this.#vf(vf)),
    };
  }

  #vf(vf: VfRecord): VfView {
    const { address, index, state, driver, use, iommuGroup, numaNode, tokenId, connectionId } = vf;
    const token = tokenId && shortToken(tokenId);
    const conditions = vf.conditions.map((one) => {
      return { code: one.code, effect: effectOf(one), label: labelOf(one), text: describeCondition(one) };
    });
    const seen = { address, index, state, conditions, driver, use, iommuGroup, numaNode };
    return { ...seen, token, pod: tokenId && this.#later.podOf?.(tokenId), connection: connectionId };
  }

  #connections(vfs: readonly VfRecord[]): readonly ConnectionView[] {
    const byConnection = new Map(vfs.map((vf) => [vf.connectionId, vf]));
    return (this.#later.nsm?.connections() ?? []).map((one) => {
      const vf = byConnection.get(one.id);
      return { ...one, vf: vf?.address, pod: vf?.tokenId && this.#later.podOf?.(vf.tokenId) };
    });
  }

  #resources(): readonly ResourceView[] {
    const { inventory } = this.#node ?? {};
    return (inventory?.resources ?? []).map((name) => {
      const devices = inventory?.devicesOf(name) ?? [];
      const inUse = devices.filter(({ allocated }) => allocated).length;
      const free = devices.filter(({ allocated, healthy }) => !allocated && healthy).length;
      return { name, total: devices.length, inUse, free, unavailable: devices.length - inUse - free };
    });
  }
}
