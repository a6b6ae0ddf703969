import { type Clock, Latest } from "../async/index.ts";

/** `blocking`: the forwarder cannot serve, it is not ready. `warning`: it serves, but a person should look. */
export type Severity = "blocking" | "warning";

/** What is known of a condition before it is ever so. */
export interface ConditionSpec {
  /** Kebab-case and for ever: alerts and docs/operate.md name it. */
  readonly code: string;
  readonly severity: Severity;
  /** Codes of conditions that bring this one about; while one of them stands, this one is shown as its consequence. */
  readonly dependsOn?: readonly string[];
}

/** Something that is wrong now. */
export interface Ailment {
  readonly code: string;
  readonly severity: Severity;
  /** Which one it is about where there are many, for example a PCI address. */
  readonly subject: string | undefined;
  /** A sentence for the operator: what is so, what follows, what to do. */
  readonly sentence: string;
  /** Since when, ms since 1970. */
  readonly sinceMs: number;
  /** Codes that stand too and bring this one about. */
  readonly causedBy: readonly string[];
}

/** A declared condition, held by the code that knows whether it is so. */
export interface Condition {
  /** It is so. Said again with another sentence it keeps its time. */
  raise(sentence: string, subject?: string): void;
  /** It is so no more, for this subject. */
  clear(subject?: string): void;
}

/** What is wrong with the forwarder, from everyone who knows; readiness follows from it. */
export class Health {
  readonly #clock: Clock;
  readonly #specs = new Map<string, ConditionSpec>();
  readonly #standing = new Map<string, Omit<Ailment, "causedBy">>();
  readonly #listeners = new Set<() => void>();
  /** Whether no blocking condition stands; changes are told to its listeners. */
  readonly ready = new Latest<boolean>(true);

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Declares a condition; with `sentence` it stands from now on ("waiting for the first SVID").
   * @throws {Error} when the code is taken.
   */
  declare(spec: ConditionSpec, sentence?: string): Condition {
    if (this.#specs.has(spec.code))
      throw new Error(`Cannot declare health condition ${spec.code}: it is declared already`);
    this.#specs.set(spec.code, spec);
    const condition: Condition = {
      raise: (text, subject) => this.#raise(spec, text, subject),
      clear: (subject) => this.#clear(spec, subject),
    };
    if (sentence !== undefined) condition.raise(sentence);
    return condition;
  }

  /** Calls back when anything has begun to stand, stands no more, or is said in other words. Returns how to stop. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** What stands now: blocking before warning, causes before consequences, then the oldest first. */
  ailments(): readonly Ailment[] {
    const codes = new Set([...this.#standing.values()].map((ailment) => ailment.code));
    const all = [...this.#standing.values()].map((ailment) => ({
      ...ailment,
      causedBy: this.#causes(ailment.code, codes),
    }));
    const weight = (ailment: Ailment) =>
      (ailment.severity === "blocking" ? 0 : 2) + (ailment.causedBy.length > 0 ? 1 : 0);
    return all.sort((a, b) => weight(a) - weight(b) || a.sinceMs - b.sinceMs);
  }

  #raise(spec: ConditionSpec, sentence: string, subject: string | undefined): void {
    const key = keyOf(spec, subject);
    const before = this.#standing.get(key);
    if (before?.sentence === sentence) return;
    const sinceMs = before?.sinceMs ?? this.#clock.now();
    this.#standing.set(key, { code: spec.code, severity: spec.severity, subject, sentence, sinceMs });
    this.#tell();
  }

  #clear(spec: ConditionSpec, subject: string | undefined): void {
    if (this.#standing.delete(keyOf(spec, subject))) this.#tell();
  }

  #tell(): void {
    const isReady = ![...this.#standing.values()].some((ailment) => ailment.severity === "blocking");
    if (isReady !== this.ready.value) this.ready.set(isReady);
    for (const listener of [...this.#listeners]) listener();
  }

  /** Also causes of causes: a condition in the middle may not stand itself. */
  #causes(code: string, standing: ReadonlySet<string>): readonly string[] {
    const seen = new Set<string>();
    const visit = (of: string) => {
      for (const cause of this.#specs.get(of)?.dependsOn ?? []) {
        if (cause === code || seen.has(cause)) continue;
        seen.add(cause);
        visit(cause);
      }
    };
    visit(code);
    return [...seen].filter((cause) => standing.has(cause));
  }
}

function keyOf(spec: ConditionSpec, subject: string | undefined): string {
  return `${spec.code} ${subject ?? ""}`;
}
