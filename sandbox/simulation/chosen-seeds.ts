/** What of the environment chooses seeds. */
export interface SeedChoice {
  /** The one seed to run. */
  readonly SEED?: string | undefined;
  /** How many seeds to run, from 1 on. */
  readonly SEEDS?: string | undefined;
}

const USUAL_COUNT = 5;

/** The seeds of a story, never none; `times` as many of a story with more places where it can end. @throws for what chooses no seed. */
export function chosenSeeds({ SEED, SEEDS }: SeedChoice, times = 1): readonly number[] {
  if (SEED !== undefined) return [wholeNumber("SEED", SEED, 0)];
  const count = SEEDS === undefined ? USUAL_COUNT : wholeNumber("SEEDS", SEEDS, 1);
  return Array.from({ length: count * times }, (_, index) => index + 1);
}

function wholeNumber(name: string, text: string, least: number): number {
  const number = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isSafeInteger(number) && number >= least) return number;
  throw new Error(`Cannot run the stories with ${name}="${text}": it must be a whole number from ${least} on`);
}
