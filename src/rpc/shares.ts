/** How much of one thing may be in use at once. */
export interface ShareLimits {
  /** By one owner other than the manager, and never more than it leaves free. */
  readonly each: number;
  /** By all owners together, but the manager. */
  readonly others: number;
  readonly manager: number;
}

interface Use {
  amount: number;
  /** Of it, what counts for all together. */
  ofAll: number;
  isApart: boolean;
}

/**
 * How much of one thing each owner has in use: connections, calls, bytes, descriptors. What the manager has counts apart, so that the
 * others together, however many they are, leave it what it may have. Of the others each has at most as much as is then left free, or a
 * first piece: however many take all that they can, who comes later finds room.
 */
export class Shares {
  readonly #limits: ShareLimits;
  readonly #isManager: (owner: string) => boolean;
  readonly #uses = new Map<string, Use>();
  #others = 0;

  constructor(limits: ShareLimits, isManager: (owner: string) => boolean) {
    this.#limits = limits;
    this.#isManager = isManager;
  }

  /** What the owner has in use. */
  usedBy(owner: string): number {
    return this.#uses.get(owner)?.amount ?? 0;
  }

  /** Takes it all, or nothing and answers false. `ofAll`: less where another owner has the same thing, which counts for all already. */
  take(owner: string, amount: number, ofAll = amount): boolean {
    const use = this.#useOf(owner);
    if (!this.#hasRoom(use, amount, ofAll)) return false;
    this.#uses.set(owner, use);
    this.#add(use, amount, ofAll);
    return true;
  }

  give(owner: string, amount: number, ofAll = amount): void {
    const use = this.#useOf(owner);
    this.#add(use, -amount, -ofAll);
    if (use.amount === 0) this.#uses.delete(owner);
  }

  /** One has the thing no more that counted for all as its own; the other, who has it still, is in its place. */
  pass(from: string, to: string, ofAll: number): void {
    this.#add(this.#useOf(from), 0, -ofAll);
    this.#add(this.#useOf(to), 0, ofAll);
  }

  #hasRoom(use: Use, amount: number, ofAll: number): boolean {
    const { each, others, manager } = this.#limits;
    const own = use.amount + amount;
    if (use.isApart) return own <= manager;
    const free = others - this.#others - ofAll;
    return own <= each && free >= 0 && (use.amount === 0 || own <= free);
  }

  /** Who the manager is is known after the first registration only, and may change. */
  #useOf(owner: string): Use {
    const isApart = this.#isManager(owner);
    const use = this.#uses.get(owner) ?? { amount: 0, ofAll: 0, isApart };
    if (use.isApart !== isApart) this.#others += isApart ? -use.ofAll : use.ofAll;
    use.isApart = isApart;
    return use;
  }

  #add(use: Use, amount: number, ofAll: number): void {
    use.amount += amount;
    use.ofAll += ofAll;
    if (!use.isApart) this.#others += ofAll;
  }
}
