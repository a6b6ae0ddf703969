import { randomInt } from "node:crypto";

/** The seed of a card whose behaviour is random: that of CARD_SEED, to tell a story again, else another one each time. */
export function cardSeed(): number {
  const told = Number(process.env["CARD_SEED"]);
  return Number.isInteger(told) && told > 0 ? told : randomInt(1, 2 ** 31);
}
