// The node as operators see it, on the status page, in `/status.json` and in `forwarder status`. Plain data that JSON can hold.
import type { RaisedCondition } from "../telemetry/index.ts";

/** Where a VF is in its life. */
export const vfStates = ["idle", "reserved", "preparing", "ready", "reclaiming", "quarantined"] as const;

/** Something that is so of a VF: src/inventory/vf-condition.ts. */
interface VfConditionView {
  readonly code: string;
  /** What it means: given to no client and not proven clean, given to none, given to none as long as none has it, nothing. */
  readonly effect: "quarantine" | "reclaim" | "unhealthy" | "withhold" | "inform";
  /** In a few words, as they are shown behind a number of VFs. */
  readonly label: string;
  readonly text: string;
}

/** A VF. Never with a whole token: `token` is its beginning, enough to distinguish two. */
export interface VfView {
  /** PCI address. */
  readonly address: string;
  /** Number on its physical function. */
  readonly index: number;
  readonly state: (typeof vfStates)[number];
  /** All that are so, the first to be read first. */
  readonly conditions: readonly VfConditionView[];
  readonly driver?: string | undefined;
  /** What its connection uses it as. */
  readonly use?: string | undefined;
  readonly iommuGroup?: number | undefined;
  readonly numaNode?: number | undefined;
  readonly token?: string | undefined;
  /** "namespace/name" of the pod that kubelet says has its token. */
  readonly pod?: string | undefined;
  readonly connection?: string | undefined;
}

/** Whether there is a signal on the wire; `unknown` until the kernel has said so. */
export type Carrier = "up" | "down" | "unknown";

/** A physical function that is configured. */
export interface PfView {
  /** PCI address. */
  readonly address: string;
  readonly ifname?: string | undefined;
  readonly driver?: string | undefined;
  readonly numaNode?: number | undefined;
  readonly carrier: Carrier;
  /** The most virtual functions that it can have. */
  readonly totalVfs?: number | undefined;
  /** What the host itself uses it for, in words. */
  readonly hostUse?: string | undefined;
  /** Names under which kubelet is offered its VFs. */
  readonly resources: readonly string[];
  /** Why it cannot be used, or what is wrong with it. */
  readonly problem?: string | undefined;
  /** By index. */
  readonly vfs: readonly VfView[];
}

/** What one client has been given. */
export interface ConnectionView {
  readonly id: string;
  readonly phase: string;
  readonly mechanism?: string | undefined;
  /** The client's name on the path; for a pod mostly the pod's. */
  readonly client?: string | undefined;
  readonly networkService?: string | undefined;
  readonly endpoint?: string | undefined;
  /** PCI address of its virtual function. */
  readonly vf?: string | undefined;
  /** "namespace/name", where kubelet has said so. */
  readonly pod?: string | undefined;
  /** When it ends unless it is refreshed, ms since 1970. */
  readonly expiresMs?: number | undefined;
}

/** A resource as kubelet is offered it. */
export interface ResourceView {
  readonly name: string;
  /** Device ids, and how many of them a pod has, could get, or must not get now: the VF is taken by another name, or unfit. */
  readonly total: number;
  readonly inUse: number;
  readonly free: number;
  readonly unavailable: number;
}

/** Something that went wrong lately, as the log reported it. */
export interface TroubleView {
  readonly atMs: number;
  readonly level: "error" | "warn";
  /** The log's event. */
  readonly event: string;
  /** The fields of the event in one line, without secrets. */
  readonly text: string;
}

/** Everything that is shown. */
export interface NodeView {
  readonly name: string;
  readonly version: string;
  /** When the process began and when this was seen, ms since 1970. */
  readonly startedMs: number;
  readonly seenMs: number;
  readonly isReady: boolean;
  readonly conditions: readonly RaisedCondition[];
  /** Undefined until the SPIRE agent has answered. */
  readonly identity?: { readonly spiffeId: string; readonly expiresMs: number } | undefined;
  readonly pfs: readonly PfView[];
  readonly connections: readonly ConnectionView[];
  readonly resources: readonly ResourceView[];
  /** The latest first. */
  readonly troubles: readonly TroubleView[];
}

/** Where the page gets the node from: the composition knows it, the page does not. */
export interface NodeViewSource {
  /** The node at this moment. */
  view(): NodeView;
  /** Calls back when a view may have changed. Returns how to stop. */
  onChange(listener: () => void): () => void;
}

/** What keeps the VF from clients, whatever has it. */
export function problemsOf({ conditions }: VfView): readonly VfConditionView[] {
  return conditions.filter(({ effect }) => effect !== "inform");
}

/** How many VFs that are not quarantined have which problem first: those that are have a state that says so. */
export function problemCounts(vfs: readonly VfView[]): readonly { readonly label: string; readonly count: number }[] {
  const firsts = vfs.flatMap((vf) => (vf.state === "quarantined" ? [] : (problemsOf(vf)[0]?.label ?? [])));
  return [...Map.groupBy(firsts, (label) => label)].map(([label, { length }]) => ({ label, count: length }));
}
