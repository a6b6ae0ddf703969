import type { CheckFacts } from "./facts-form.ts";
import type { Finding, Level, Mechanism } from "./finding.ts";
import { judgeHostUse } from "./judge-host-use.ts";
import { judgePfs } from "./judge-pfs.ts";
import { judgeProgram, judgeSurroundings } from "./judge-surroundings.ts";
import { judgeVfio } from "./judge-vfio.ts";

const weights: Readonly<Record<Level, number>> = { fail: 0, warn: 1, ok: 2 };

/** What the facts mean for the mechanisms: failures first, then doubts, then what is well. */
export function judge(facts: CheckFacts, mechanisms: readonly Mechanism[]): readonly Finding[] {
  // In the order of causes: what the program is, what it is to use, whom it needs, what VFIO needs besides.
  const all = [
    ...judgeProgram(facts),
    ...judgePfs(facts),
    ...judgeHostUse(facts),
    ...judgeSurroundings(facts),
    ...judgeVfio(facts.vfio, facts.cgroups, facts.process),
  ];
  return all
    .filter((finding) => finding.mechanisms.some((mechanism) => mechanisms.includes(mechanism)))
    .sort((a, b) => weights[a.level] - weights[b.level]);
}

/** How often a level was found for a mechanism. */
export function countOf(findings: readonly Finding[], level: Level, mechanism: Mechanism): number {
  return findings.filter((finding) => finding.level === level && finding.mechanisms.includes(mechanism)).length;
}
