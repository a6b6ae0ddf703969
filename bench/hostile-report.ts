import type { AttackFigures, HostileFigures, Window } from "./hostile.ts";
import { compared, ratioOf } from "./innocent-times.ts";
import { timeText } from "./time-text.ts";

type Cells = readonly string[];

const HEADINGS = ["ms: p50 / p99", "alone", "under attack", "same CPU load", "times longer"];

/** A table for each attack: innocents alone, under it, and under the same CPU load. `says` is who took the processors. */
export function hostileTables({ alone, attacks }: HostileFigures) {
  return attacks.map((figures) => ({ says: loadText(figures), headings: HEADINGS, rows: callRows(figures, alone) }));
}

function loadText({ says, way, attacked, loaded }: AttackFigures): string {
  const through = way === "manager" ? ", through the manager" : "";
  const share = (processors: number) => processors.toFixed(2);
  return (
    `A peer ${says}${through}. It took ${share(attacked.load)} processors and the forwarder ${share(attacked.forwarder)}; ` +
    `in its place burners took ${share(loaded.load)}, and the forwarder ${share(loaded.forwarder)}. ` +
    `Innocents tried again ${attacked.retries} times, and ${loaded.retries}.`
  );
}

function callRows({ attacked, loaded }: AttackFigures, alone: Window): readonly Cells[] {
  return compared.map((kind) => {
    const [under, beside] = [attacked.times[kind], loaded.times[kind]];
    const times = [alone.times[kind], under, beside, ratioOf(under, beside)];
    return [kind, ...times.map((one) => timeText(one) ?? "–")];
  });
}

/** The same for the report as JSON. */
export function hostileKeys({ alone, attacks, leftOut }: HostileFigures): Readonly<Record<string, unknown>> {
  return { alone: windowKeys(alone), attacks: attacks.map(attackKeys), left_out: leftOut };
}

function attackKeys({ says, way, attacked, loaded }: AttackFigures) {
  const ratios = compared.map((kind) => [kind, ratioOf(attacked.times[kind], loaded.times[kind])] as const);
  const times = Object.fromEntries(ratios.filter(([, ratio]) => ratio !== undefined));
  return { attack: says, way, attacked: windowKeys(attacked), same_cpu_load: windowKeys(loaded), times_longer: times };
}

function windowKeys({ times, retries, load, forwarder }: Window) {
  return { ms: times, tries_again: retries, load_processors: load, forwarder_processors: forwarder };
}
