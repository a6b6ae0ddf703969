/** How a client gets a VF. */
export const mechanisms = ["KERNEL", "VFIO"] as const;
export type Mechanism = (typeof mechanisms)[number];

/** `fail`: the mechanism cannot work. `warn`: it may, but an operator should check. */
export type Level = "ok" | "warn" | "fail";

/** What one check has found. */
export interface Finding {
  /** What was checked: kebab-case and for ever, scripts name it. */
  readonly check: string;
  /** Which one where there are many, for example a PCI address. */
  readonly subject?: string;
  readonly level: Level;
  /** Whom it concerns. */
  readonly mechanisms: readonly Mechanism[];
  /** What is so. */
  readonly what: string;
  /** What follows from it. */
  readonly why?: string;
  /** What to do about it. */
  readonly todo?: string;
}

const both = mechanisms;

/** All is well with it. */
export function fine(check: string, what: string, more: Partial<Finding> = {}): Finding {
  return { check, level: "ok", mechanisms: both, what, ...more };
}

/** What a problem must say. */
export type Problem = Omit<Finding, "level" | "mechanisms"> & {
  /** Both by default. */
  readonly mechanisms?: readonly Mechanism[];
  readonly why: string;
  readonly todo: string;
};

/** It keeps a mechanism from working. */
export function failure(problem: Problem): Finding {
  return { mechanisms: both, ...problem, level: "fail" };
}

/** An operator should check. */
export function doubt(problem: Problem): Finding {
  return { mechanisms: both, ...problem, level: "warn" };
}
