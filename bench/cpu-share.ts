// How much of the processors a group of processes takes, and how burners take the same.

/** What proc_pid_stat(5) says of one process, as far as it is read here. */
interface Stat {
  readonly group: number;
  /** With that of its children that have ended, in ms. */
  readonly cpuMs: number;
}

/** Of the kernel's clock, of which there are 100 in a second. */
const MS_A_TICK = 10;

/** Undefined where it is no such line: the process has ended meanwhile. */
export function parseStat(text: string): Stat | undefined {
  // After the name, which may hold blanks and brackets: the state, which is field 3.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const field = (number: number) => Number(fields[number - 3] ?? Number.NaN);
  const ticks = [14, 15, 16, 17].reduce((sum, number) => sum + field(number), 0);
  return Number.isNaN(ticks) ? undefined : { group: field(5), cpuMs: ticks * MS_A_TICK };
}

/** CPU time of the processes of these lines that are in the group, in ms. Of one that has ended, its parent has it. */
export function groupCpuMs(stats: readonly string[], group: number): number {
  const members = stats.map(parseStat).filter((stat) => stat?.group === group);
  return members.reduce((sum, stat) => sum + (stat?.cpuMs ?? 0), 0);
}

/** The shares of a processor of as few processes as can take so many processors, each the same. */
export function burnerShares(processors: number): readonly number[] {
  const count = Math.ceil(processors);
  return Array.from({ length: count }, () => processors / count);
}

/** The longest time for which a burner looks at no clock, in ms. */
export const BURN_MS = 5;

/**
 * For how long a burner computes now, in ms; 0 for a rest. What it could not have so far, because others had the processor, it takes as
 * soon as it can.
 */
export function burnNowMs({ share, elapsedMs, usedMs }: { share: number; elapsedMs: number; usedMs: number }): number {
  return Math.min(BURN_MS, Math.max(0, share * elapsedMs - usedMs));
}
