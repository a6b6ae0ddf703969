interface TakeBack {
  readonly what: string;
  readonly run: () => Promise<void> | void;
}

/** Take-backs of the steps done so far, run last in, first out. */
export class UndoStack {
  #steps: TakeBack[] = [];
  #current: string | undefined;

  /** What is being undone now. */
  get current(): string | undefined {
    return this.#current;
  }

  get size(): number {
    return this.#steps.length;
  }

  /** Records how to undo a step that has just been done. `what` names it in logs, for example "driver-bound". */
  push(what: string, run: () => Promise<void> | void): void {
    this.#steps.push({ what, run });
  }

  /** The work is done: nothing is to be undone any more. */
  release(): void {
    this.#steps = [];
  }

  /**
   * Undoes everything, past failures too. The failures are handed to `onFailure` and never thrown: the error that
   * made us unwind is the one the caller must see.
   */
  async unwind(onFailure: (what: string, error: unknown) => void): Promise<void> {
    for (let step = this.#steps.pop(); step; step = this.#steps.pop()) {
      this.#current = step.what;
      try {
        await step.run();
      } catch (error) {
        onFailure(step.what, error);
      }
    }
    this.#current = undefined;
  }
}
