// What is wrong with a VF, or worth knowing of it: typed, several at a time, each raised and cleared by its own cause.

/** Each with what its raiser knew. A new one does not compile until it has its row below, and its name on page and CLI. */
export type VfCondition =
  /** The node has the VF no more, and something still refers to it. The inventory raises it itself. */
  | { readonly code: "gone" }
  /** The journal has it for a connection, and the node says otherwise. */
  | { readonly code: "contradicts-journal"; readonly problem: string }
  /** A pod has it by VFIO, for a connection of which nothing else is known. */
  | { readonly code: "unexplained-grant"; readonly problem: string }
  /** It came after the start, and the journal has it for this connection: the two are being compared. */
  | { readonly code: "late-unsettled"; readonly connectionId: string }
  /** It was changed after it had been restored to the host. */
  | { readonly code: "drifted" }
  /** Its network device is neither in the host nor with a client that the journal knows. */
  | { readonly code: "netdev-missing" }
  /** Another device's link is where its own should be. */
  | { readonly code: "foreign-link"; readonly error: string }
  /** The kernel has not finished a write on it. */
  | { readonly code: "write-stuck"; readonly error: string }
  /** Its driver is still being bound for a Request that has continued with another VF. */
  | { readonly code: "driver-binding" }
  /** Its PF cannot be used. */
  | { readonly code: "pf-unusable"; readonly error: string }
  | { readonly code: "pf-not-managed" }
  /** Another driver was bound to it while a client has it. */
  | { readonly code: "driver-taken"; readonly driver: string | undefined }
  /** It was in this group before. The inventory raises it itself. */
  | { readonly code: "iommu-group-lost"; readonly group: number }
  | { readonly code: "pf-in-switchdev-mode"; readonly problem: string }
  | { readonly code: "pf-without-carrier"; readonly problem: string }
  /** It could not be bound to its driver a moment ago. */
  | { readonly code: "bind-failed"; readonly error: string }
  /** The host itself uses its network device. */
  | { readonly code: "host-use"; readonly how: string };

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
  /** What is so, for the operator. */
  readonly words: (condition: Condition) => string;
}

const LINK_AWAY = "Its network device is not in the host: its driver has not made it yet, or it is in a namespace that";

/** Where several are so, the first of this order is shown first. */
const rules: { readonly [Code in VfConditionCode]: Rule<VfConditionOf<Code>> } = {
  gone: { effect: "quarantine", words: () => "it is gone from the node" },
  "contradicts-journal": { effect: "quarantine", words: ({ problem }) => problem },
  "unexplained-grant": { effect: "quarantine", words: ({ problem }) => problem },
  "late-unsettled": {
    effect: "quarantine",
    words: ({ connectionId }) => `It was out for connection ${connectionId}; it is being compared with the journal`,
  },
  drifted: { effect: "quarantine", words: () => "It is not as it was before its last client" },
  "netdev-missing": { effect: "quarantine", words: () => `${LINK_AWAY} the journal does not know of` },
  "foreign-link": { effect: "quarantine", words: ({ error }) => error },
  "write-stuck": { effect: "quarantine", words: ({ error }) => error },
  "driver-binding": {
    effect: "quarantine",
    words: () => "Its driver is still being bound, for longer than a Request could wait",
  },
  "pf-unusable": { effect: "unhealthy", words: ({ error }) => error },
  "pf-not-managed": { effect: "unhealthy", words: () => "its PF is not managed any more" },
  "driver-taken": {
    effect: "unhealthy",
    words: ({ driver = "none" }) => `its driver was taken away while a client has it; it is bound to ${driver} now`,
  },
  "iommu-group-lost": {
    effect: "unhealthy",
    words: ({ group }) =>
      `it has lost its IOMMU group ${group}: nothing keeps it from the memory of others; look at the kernel's log`,
  },
  "pf-in-switchdev-mode": { effect: "unhealthy", words: ({ problem }) => problem },
  "pf-without-carrier": { effect: "unhealthy", words: ({ problem }) => problem },
  "bind-failed": { effect: "unhealthy", words: ({ error }) => error },
  "host-use": { effect: "withhold", words: ({ how }) => how },
};

/** In the order in which they are shown. */
export const vfConditionCodes = Object.keys(rules) as readonly VfConditionCode[];

const ranks = new Map(vfConditionCodes.map((code, rank) => [code, rank]));
const none: readonly VfCondition[] = [];

/** What a condition means for its VF. */
export function effectOf({ code }: Pick<VfCondition, "code">): ConditionEffect {
  return rules[code].effect;
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
