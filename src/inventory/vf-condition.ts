// What is wrong with a VF, or worth knowing of it: typed, several at a time, each raised and cleared by its own cause.
import type { AttachmentState } from "../netdev/index.ts";

/** Each with what its raiser knew. A new one does not compile until it has its effect, its label and its words below. */
export type VfCondition =
  /** Something still refers to it. Raised by the inventory itself, as is a lost group. */
  | { readonly code: "gone" }
  | { readonly code: "contradicts-journal"; readonly error: string }
  /** A pod has it by VFIO, and no connection is known that explains it. */
  | { readonly code: "unexplained-grant"; readonly error: string }
  /** Pods, by UID, may open it by VFIO since before this forwarder: the Go original let them. */
  | { readonly code: "open-to-pod"; readonly pods: readonly string[] }
  /** The journal has it for this connection, and none holds it: the two are being compared. */
  | { readonly code: "unsettled"; readonly connectionId: string }
  | { readonly code: "drifted"; readonly before: BeforeClient }
  /** It is free, or nothing is known of its connection. */
  | { readonly code: "netdev-missing" }
  /** Its client has left it, and its driver makes another network device: no fault, and over soon. */
  | { readonly code: "being-cleaned" }
  /** Another device's link is where its own should be. */
  | { readonly code: "foreign-link"; readonly error: string }
  | { readonly code: "write-stuck"; readonly error: string }
  /** For a Request that has continued with another VF. */
  | { readonly code: "driver-binding" }
  | { readonly code: "pf-unusable"; readonly error: string }
  | { readonly code: "pf-not-managed" }
  | { readonly code: "driver-taken"; readonly driver: string | undefined }
  | { readonly code: "iommu-group-lost"; readonly group: number }
  | { readonly code: "pf-in-switchdev-mode"; readonly error: string }
  | { readonly code: "pf-without-carrier"; readonly error: string }
  | { readonly code: "bind-failed"; readonly error: string }
  | { readonly code: "host-use"; readonly how: string }
  /** The previous instance left it with its client. `ending`: the namespace has ended, and so does the connection, again perhaps. */
  | { readonly code: "pending-netns"; readonly ending: "not" | "now" | "again" }
  /** It is clean, and not all that the host had set of its network device could be set again. */
  | { readonly code: "not-as-before"; readonly error: string }
  /** Beside it: the name that the host had for its network device. */
  | { readonly code: "name-taken"; readonly name: string }
  /** At a monotonic time. */
  | { readonly code: "recently-restored"; readonly sinceMs: number; readonly before: BeforeClient }
  /** The inventory had something else of it than the node; an event may be on its way. */
  | { readonly code: "mismatch"; readonly isRescanned: boolean }
  /** One pass has not found it where `netdev-missing` wants two. */
  | { readonly code: "netdev-unseen" }
  /** At monotonic times: after so many tries in a row, the last one and the next one. */
  | {
      readonly code: "repair-failed";
      readonly repair: string;
      readonly error: string;
      readonly tries: number;
      readonly sinceMs: number;
      readonly againMs: number;
    };

/** How the host had the VF's network device, before a client or another driver had the VF. */
export interface BeforeClient {
  /** Of the client; undefined where that is not known. */
  readonly connectionId?: string;
  readonly state: AttachmentState;
}

/** By which conditions are distinguished, in metrics and `status.json` too. */
export type VfConditionCode = VfCondition["code"];

/** The condition of one code. */
export type VfConditionOf<Code extends VfConditionCode> = Extract<VfCondition, { readonly code: Code }>;

/**
 * What a condition means for its VF. `quarantine`: given to no client and rebound for none, because nothing proves that it is clean.
 * `reclaim`: given to no client, and over soon by itself: neither kubelet nor health hears of it.
 * `unhealthy`: given to no client, and kubelet is notified even while a pod has it. `withhold`: given to no client, and without
 * effect on the one that has it. `inform`: shown only.
 */
export type ConditionEffect = "quarantine" | "reclaim" | "unhealthy" | "withhold" | "inform";

/** The effect; a few words that fit behind a number of VFs; what is so, for the operator. */
type Rule<Condition> = readonly [effect: ConditionEffect, label: string, words: (condition: Condition) => string];

const LINK_AWAY = "Its network device is not in the host: its driver has not made it yet, or it is in a namespace that";
const SLOW = "Its driver is still being bound, for longer than a Request could wait";
const TAKEN = "its driver was taken away while a client has it; it is bound";
const OPEN = "nothing keeps it from the memory of others; look at the kernel's log";
const said = ({ error }: { readonly error: string }) => error;

/** Where several are so, the first of this order is shown first. Those that begin with "pf-" are so of all VFs of a PF. */
const rules: { readonly [Code in VfConditionCode]: Rule<VfConditionOf<Code>> } = {
  gone: ["quarantine", "gone", () => "it is gone from the node"],
  "contradicts-journal": ["quarantine", "contradicting the journal", said],
  "unexplained-grant": ["quarantine", "with an unexplained grant", said],
  "open-to-pod": [
    "quarantine",
    "open to a pod of before",
    ({ pods }) => `The Go original let a pod open it by VFIO, and it is that pod's (UID ${pods.join(", ")})`,
  ],
  unsettled: [
    "quarantine",
    "being compared with the journal",
    ({ connectionId: id }) => `It was out for connection ${id}`,
  ],
  drifted: ["quarantine", "drifted", () => "It is not as it was before its last client"],
  "netdev-missing": ["quarantine", "without a network device", () => `${LINK_AWAY} the journal does not know of`],
  "foreign-link": ["quarantine", "with a foreign link", said],
  "write-stuck": ["quarantine", "with a stuck write", said],
  "being-cleaned": [
    "reclaim",
    "being cleaned",
    () => "Its client has left it, and its driver makes another network device",
  ],
  "driver-binding": ["quarantine", "still being bound", () => SLOW],
  "pf-unusable": ["unhealthy", "of an unusable PF", said],
  "pf-not-managed": ["unhealthy", "of an unmanaged PF", () => "its PF is not managed any more"],
  "driver-taken": ["unhealthy", "without the client's driver", ({ driver = "none" }) => `${TAKEN} to ${driver} now`],
  "iommu-group-lost": [
    "unhealthy",
    "without an IOMMU group",
    ({ group }) => `it has lost its IOMMU group ${group}: ${OPEN}`,
  ],
  "pf-in-switchdev-mode": ["unhealthy", "in switchdev mode", said],
  "pf-without-carrier": ["unhealthy", "without carrier", said],
  "bind-failed": ["unhealthy", "not bound recently", said],
  "host-use": ["withhold", "used by the host", ({ how }) => how],
  "pending-netns": ["inform", "awaiting its client", () => "its client's namespace comes with the client's next call"],
  "not-as-before": ["inform", "not as the host had set it", said],
  "name-taken": [
    "inform",
    "under another name",
    ({ name }) => `its name, ${name}, is another link's, or another VF has it again after its client`,
  ],
  "recently-restored": ["inform", "recently restored", () => "it is watched for writes that come late"],
  mismatch: ["inform", "not as in the inventory", () => "the inventory and the node differ about it"],
  "netdev-unseen": [
    "inform",
    "without a network device just now",
    () => "its network device was not in the host just now",
  ],
  "repair-failed": ["inform", "not repaired", ({ repair, error }) => `it could not be repaired (${repair}): ${error}`],
};

/** In the order in which they are shown. */
export const vfConditionCodes = Object.keys(rules) as readonly VfConditionCode[];

const ranks: ReadonlyMap<VfConditionCode, number> = new Map(vfConditionCodes.map((code, rank) => [code, rank]));

/** Its place among those that are shown. */
export function rankOf({ code }: Pick<VfCondition, "code">): number {
  return ranks.get(code) ?? 0;
}

/** What a condition means for its VF. */
export function effectOf({ code }: Pick<VfCondition, "code">): ConditionEffect {
  return rules[code][0];
}

/** Whether it is quarantined only until what the host had set of it is set again, which is over soon: nothing has resisted yet. */
export function isBeingRestored(conditions: readonly VfCondition[]): boolean {
  const quarantining = conditions.filter((one) => effectOf(one) === "quarantine");
  const isFailing = conditions.some(({ code }) => code === "repair-failed");
  return quarantining.length > 0 && quarantining.every(({ code }) => code === "drifted") && !isFailing;
}

/** In a few words, as they are shown behind a number of VFs. */
export function labelOf({ code }: Pick<VfCondition, "code">): string {
  return rules[code][1];
}

/** What is so, as a sentence for the operator. */
export function describeCondition<Code extends VfConditionCode>(condition: VfConditionOf<Code>): string {
  return rules[condition.code][2](condition);
}
