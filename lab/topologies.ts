// What there is to boot, and what each guest has to show. Both the host and the guest read this; the guest must report every
// scenario that is listed here, or the run has failed.

/** Debian's own kernels. 6.1 has every cgroup of version 1; 6.12 has a unified hierarchy. */
export type Kernel = "6.1" | "6.12";

export const kernels: readonly Kernel[] = ["6.1", "6.12"];

/** What a guest's machine is like. All have two adapters with seven virtual functions each. */
export interface Topology {
  readonly name: "crowd" | "disk" | "hub" | "shared-groups" | "no-iommu" | "udev";
  readonly says: string;
  readonly hasIommu: boolean;
  /** Whether the left adapter's port keeps VFs apart: without, that adapter and its VFs are in one IOMMU group. */
  readonly hasAcs: boolean;
  /** Whether it has a disk: its power can be cut then, and it is booted again from what the disk has. */
  readonly hasDisk: boolean;
  /** Those that it is booted on. */
  readonly kernels: readonly Kernel[];
  /** In this order, on one running node. */
  readonly scenarios: readonly string[];
  /** About what it takes on two cores, in seconds: the longest begin first. */
  readonly usualS: Readonly<Record<Kernel, number>>;
  /** The guest is killed after so long, not counting the time in which it had no processor. */
  readonly limitMs: number;
}

export const topologies: readonly Topology[] = [
  {
    name: "crowd",
    says: "as hub; a guest of its own because it takes so long",
    hasIommu: true,
    hasAcs: true,
    hasDisk: false,
    kernels,
    scenarios: ["crowd"],
    usualS: { "6.1": 140, "6.12": 640 },
    limitMs: 1_500_000,
  },
  {
    name: "hub",
    says: "two adapters on one wire, an IOMMU group for each VF",
    hasIommu: true,
    hasAcs: true,
    hasDisk: false,
    kernels,
    scenarios: ["contracts", "kernel", "tenants", "vfio", "trouble", "crashes"],
    usualS: { "6.1": 580, "6.12": 510 },
    limitMs: 1_500_000,
  },
  {
    name: "udev",
    says: "as hub; a guest of its own, where udev runs",
    hasIommu: true,
    hasAcs: true,
    hasDisk: false,
    kernels: ["6.12"],
    scenarios: ["udev"],
    usualS: { "6.1": 0, "6.12": 130 },
    limitMs: 900_000,
  },
  {
    name: "shared-groups",
    says: "as hub, but the left adapter shares one group with its VFs; the right one's VFs share one without it",
    hasIommu: true,
    hasAcs: false,
    hasDisk: false,
    kernels,
    scenarios: ["shared-groups"],
    usualS: { "6.1": 75, "6.12": 65 },
    limitMs: 300_000,
  },
  {
    name: "no-iommu",
    says: "as hub, but there is no IOMMU",
    hasIommu: false,
    hasAcs: true,
    hasDisk: false,
    kernels,
    scenarios: ["no-iommu"],
    usualS: { "6.1": 45, "6.12": 40 },
    limitMs: 300_000,
  },
  {
    name: "disk",
    says: "as no-iommu, with a disk for the forwarder's state; its power is cut, and it is booted again",
    hasIommu: false,
    hasAcs: true,
    hasDisk: true,
    kernels: ["6.12"],
    scenarios: ["power-cuts"],
    usualS: { "6.1": 0, "6.12": 120 },
    limitMs: 300_000,
  },
];

/** A round takes some ten seconds, and what it shows is the same on both kernels. */
export const crowdRounds: Readonly<Record<Kernel, number>> = { "6.1": 5, "6.12": 50 };

/** How often all VFs come and go beside udev. */
export const udevRounds = 5;

/** One guest to boot. */
export interface GuestPlan {
  readonly kernel: Kernel;
  readonly topology: Topology;
  readonly scenarios: readonly string[];
  /** Which boot of this guest it is, and what the one before has put down; for a guest with a disk. */
  readonly boot?: Boot;
}

/** A guest's memory of what happened before its power was cut. */
export interface Boot {
  /** From 0. */
  readonly number: number;
  readonly remembered: readonly unknown[];
}

/**
 * What of a plan is left for another guest when this one did not come to its end: all scenarios after the one that it was at.
 * Undefined when there is none. `over` are those that it brought to their end.
 */
export function restOf(plan: GuestPlan, over: readonly string[]): GuestPlan | undefined {
  const cut = plan.scenarios.findIndex((scenario) => !over.includes(scenario));
  const scenarios = cut < 0 ? [] : plan.scenarios.slice(cut + 1);
  return scenarios.length > 0 ? { ...plan, scenarios } : undefined;
}

/** "6.12 hub" */
export function titleOf({ kernel, topology }: Pick<GuestPlan, "kernel" | "topology">): string {
  return `${kernel} ${topology.name}`;
}

/**
 * The guests for these kernels. `only` keeps topologies or scenarios whose name holds one of its words, which commas part; a
 * guest without a scenario left is not booted.
 */
export function planGuests(desired: {
  readonly kernels: readonly Kernel[];
  readonly only: string;
}): readonly GuestPlan[] {
  const words = desired.only.split(",");
  const isWanted = (name: string) => words.some((word) => name.includes(word));
  const plans = topologies.flatMap((topology) => {
    const scenarios = topology.scenarios.filter((scenario) => isWanted(topology.name) || isWanted(scenario));
    const booted = desired.kernels.filter((kernel) => topology.kernels.includes(kernel));
    return booted.map((kernel) => ({ kernel, topology, scenarios }));
  });
  const usualS = ({ topology, kernel }: GuestPlan) => topology.usualS[kernel];
  return plans.filter(({ scenarios }) => scenarios.length > 0).toSorted((a, b) => usualS(b) - usualS(a));
}
