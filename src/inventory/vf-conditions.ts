import { type ConditionEffect, effectOf, rankOf, type VfCondition, type VfConditionCode } from "./vf-condition.ts";

const none: readonly VfCondition[] = [];

/** The conditions of one VF, at most one of each code. */
export class VfConditions {
  readonly #byCode = new Map<VfConditionCode, VfCondition>();

  /** Whether it is different now. One that is raised again takes the place of the former. */
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
    return [...this.#byCode.values()].sort((a, b) => rankOf(a) - rankOf(b));
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
