// What is wrong with a VF, or worth knowing of it: typed, several at a time, each raised and cleared by its own cause.

/** Each with what its raiser knew. A new one does not compile until it has its effect, its label and its words below. */
export type VfCondition =
  /** Something still refers to it. Raised by the inventory itself, as is a lost group. */
  | { readonly code: "gone" }
  | { readonly code: "contradicts-journal"; readonly error: string }
  /** A pod has it by VFIO, and no connection is known that explains it. */
  | { readonly code: "unexplained-grant"; readonly error: string }
  /** The journal has it for this connection, and none holds it: the two are being compared. */
  | { readonly code: "unsettled"; readonly connectionId: string }
  | { readonly code: "drifted"; readonly before: BeforeClient }
  /** It is free, or nothing is known of its connection. */
  | { readonly code: "netdev-missing" }
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
  /** At a monotonic time. */
  | { readonly code: "recently-restored"; readonly sinceMs: number; readonly before: BeforeClient }
  /** The inventory had something else of it than the node; an event may be on its way. */
  | { readonly code: "mismatch"; readonly isRescanned: boolean }
  /** One pass has not found it where `netdev-missing` wants two. */
  | { readonly code: "netdev-unseen" }
  | { readonly code: "repair-failed"; readonly repair: string; readonly error: string };

/** What the journal had of the VF when a client had it: its whole form is the journal's (src/vf/connection-journal.ts). */
export interface BeforeClient {
  readonly connectionId: string;
}

/** By which conditions are told apart, in metrics and `status.json` too. */
export type VfConditionCode = VfCondition["code"];

/** The condition of one code. */
export type VfConditionOf<Code extends VfConditionCode> = Extract<VfCondition, { readonly code: Code }>;

/**
 * What a condition means for its VF. `quarantine`: given to no client and rebound for none, because nothing proves that it is clean.
 * `unhealthy`: given to no client, and kubelet is told so even while a pod has it. `withhold`: given to no client, and without
 * effect on the one that has it. `inform`: shown only.
 */
export type ConditionEffect = "quarantine" | "unhealthy" | "withhold" | "inform";

interface Rule<Condition> {
  readonly effect: ConditionEffect;
  /** In a few words, after the number of VFs of which it is so. */
  readonly label: string;
  /** What is so, for the operator. */
  readonly words: (condition: Condition) => string;
}

const LINK_AWAY = "Its network device is not in the host: its driver has not made it yet, or it is in a namespace that";
const said = ({ error }: { readonly error: string }) => error;

/** Where several are so, the first of this order is shown first. Those of a PF are so of all its VFs. */
const rules: { readonly [Code in VfConditionCode]: Rule<VfConditionOf<Code>> } = {
  gone: { effect: "quarantine", label: "gone", words: () => "it is gone from the node" },
  "contradicts-journal": { effect: "quarantine", label: "contradicting the journal", words: said },
  "unexplained-grant": { effect: "quarantine", label: "with an unexplained grant", words: said },
  unsettled: {
    effect: "quarantine",
    label: "being compared with the journal",
    words: ({ connectionId }) => `It was out for connection ${connectionId}; it is being compared with the journal`,
  },
  drifted: {
    effect: "quarantine",
    label: "drifted",
    words: () => "It is not as it was before its last client",
  },
  "netdev-missing": {
    effect: "quarantine",
    label: "without a network device",
    words: () => `${LINK_AWAY} the journal does not know of`,
  },
  "foreign-link": { effect: "quarantine", label: "with a foreign link", words: said },
  "write-stuck": { effect: "quarantine", label: "with a stuck write", words: said },
  "driver-binding": {
    effect: "quarantine",
    label: "still being bound",
    words: () => "Its driver is still being bound, for longer than a Request could wait",
  },
  "pf-unusable": { effect: "unhealthy", label: "of an unusable PF", words: said },
  "pf-not-managed": { effect: "unhealthy", label: "of an unmanaged PF", words: () => "its PF is not managed any more" },
  "driver-taken": {
    effect: "unhealthy",
    label: "without the client's driver",
    words: ({ driver = "none" }) => `its driver was taken away while a client has it; it is bound to ${driver} now`,
  },
  "iommu-group-lost": {
    effect: "unhealthy",
    label: "without an IOMMU group",
    words: ({ group }) =>
      `it has lost its IOMMU group ${group}: nothing keeps it from the memory of others; look at the kernel's log`,
  },
  "pf-in-switchdev-mode": { effect: "unhealthy", label: "in switchdev mode", words: said },
  "pf-without-carrier": { effect: "unhealthy", label: "without carrier", words: said },
  "bind-failed": { effect: "unhealthy", label: "not bound lately", words: said },
  "host-use": { effect: "withhold", label: "used by the host", words: ({ how }) => how },
  "pending-netns": {
    effect: "inform",
    label: "awaiting its client",
    words: () => "the previous instance left it with its client, whose namespace comes with the next call",
  },
  "recently-restored": {
    effect: "inform",
    label: "restored lately",
    words: () => "it was restored a moment ago, and is observed for late writes",
  },
  mismatch: { effect: "inform", label: "otherwise than known", words: () => "the node has it otherwise than known" },
  "netdev-unseen": {
    effect: "inform",
    label: "without a network device just now",
    words: () => "its network device was not in the host a moment ago",
  },
  "repair-failed": {
    effect: "inform",
    label: "not repaired",
    words: ({ repair, error }) => `it could not be repaired (${repair}): ${error}`,
  },
};

/** In the order in which they are shown. */
export const vfConditionCodes = Object.keys(rules) as readonly VfConditionCode[];

const ranks = new Map(vfConditionCodes.map((code, rank) => [code, rank]));
const none: readonly VfCondition[] = [];

/** What a condition means for its VF. */
export function effectOf({ code }: Pick<VfCondition, "code">): ConditionEffect {
  return rules[code].effect;
}

/** In a few words, as they stand behind a number of VFs. */
export function labelOf({ code }: Pick<VfCondition, "code">): string {
  return rules[code].label;
}

/** What is so, as a sentence for the operator. */
export function describeCondition(condition: VfCondition): string {
  return (rules[condition.code] as Rule<VfCondition>).words(condition);
}

/** The conditions of one VF, at most one of each code. */
export class VfConditions {
  readonly #byCode = new Map<VfConditionCode, VfCondition>();

  /** Whether it looks different now. One that is raised again takes the place of the former. */
  raise(condition: VfCondition): boolean {
    const before = this.#byCode.get(condition.code);
    this.#byCode.set(condition.code, condition);
    return !before || !isSame(before, condition);
  }

  /** Whether it was so; with a condition instead of its code only where it was not raised again meanwhile. */
  clear(which: VfConditionCode | VfCondition): boolean {
    const code = typeof which === "string" ? which : which.code;
    if (which !== code && this.#byCode.get(code) !== which) return false;
    return this.#byCode.delete(code);
  }

  has(code: VfConditionCode): boolean {
    return this.#byCode.has(code);
  }

  /** In the order in which they are shown. */
  get all(): readonly VfCondition[] {
    if (this.#byCode.size === 0) return none;
    return [...this.#byCode.values()].sort((a, b) => (ranks.get(a.code) ?? 0) - (ranks.get(b.code) ?? 0));
  }

  /** The first of that effect. */
  first(effect: ConditionEffect): VfCondition | undefined {
    return this.all.find((condition) => effectOf(condition) === effect);
  }
}

function isSame(a: VfCondition, b: VfCondition): boolean {
  const [one, other] = [Object.entries(a), new Map(Object.entries(b))];
  return one.length === other.size && one.every(([key, value]) => other.get(key) === value);
}
