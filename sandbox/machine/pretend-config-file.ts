/** A file that an operator edits. */
export class PretendConfigFile {
  readonly path = "pci.config";
  readonly #listeners = new Set<() => void>();
  #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  get text(): string {
    return this.#text;
  }

  /** Saves another text. */
  write(text: string): void {
    this.#text = text;
    for (const listener of [...this.#listeners]) listener();
  }

  read = async () => this.#text;

  onChange = (listener: () => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };
}
