import { type Clock, Latest } from "../async/index.ts";
import { type ConditionSpec, type HealthCode, healthConditions, type Severity } from "./health-conditions.ts";

const specs: Readonly<Record<string, ConditionSpec>> = healthConditions;

/** Something that is wrong now. */
export interface RaisedCondition {
  readonly code: string;
  readonly severity: Severity;
  /** Which one it is about where there are many, for example a PCI address. */
  readonly subject: string | undefined;
  /** A sentence for the operator: what is so, what follows, what to do. */
  readonly sentence: string;
  /** Since when, ms since 1970. */
  readonly sinceMs: number;
  /** Codes that are raised too and bring this one about. */
  readonly causedBy: readonly string[];
}

/** A condition, held by the code that knows whether it is so. */
export interface Condition {
  /** It is so. Said again with another sentence it keeps its time. */
  raise(sentence: string, subject?: string): void;
  /** It is so no more, for this subject. */
  clear(subject?: string): void;
}

/** What is wrong with the forwarder, from everyone who knows; readiness follows from it. */
export class Health {
  readonly #clock: Clock;
  readonly #raised = new Map<string, Omit<RaisedCondition, "causedBy">>();
  readonly #listeners = new Set<() => void>();
  /** Whether no blocking condition is raised; changes are reported to its listeners. */
  readonly ready = new Latest<boolean>(true);

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The condition of that code; with `sentence` it is raised from now on ("waiting for the first SVID"). */
  condition(code: HealthCode, sentence?: string): Condition {
    const condition: Condition = {
      raise: (text, subject) => this.#raise(code, text, subject),
      clear: (subject) => this.#clear(code, subject),
    };
    if (sentence !== undefined) condition.raise(sentence);
    return condition;
  }

  /** Calls back when a condition is raised, cleared, or said in other words. Returns how to stop. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** What is raised now: blocking ones and their causes before warnings, causes before consequences, then the oldest first. */
  conditions(): readonly RaisedCondition[] {
    const codes = new Set([...this.#raised.values()].map((condition) => condition.code));
    const all = [...this.#raised.values()].map((condition) => ({
      ...condition,
      causedBy: this.#causes(condition.code, codes),
    }));
    const blocking = all.filter(({ severity }) => severity === "blocking");
    const urgent = new Set(blocking.flatMap(({ code, causedBy }) => [code, ...causedBy]));
    const weight = ({ code }: RaisedCondition) => (urgent.has(code) ? 0 : 1);
    // The causes of a cause are all among those of its consequence.
    const depth = ({ causedBy }: RaisedCondition) => causedBy.length;
    return all.sort((a, b) => weight(a) - weight(b) || depth(a) - depth(b) || a.sinceMs - b.sinceMs);
  }

  #raise(code: HealthCode, sentence: string, subject: string | undefined): void {
    const key = keyOf(code, subject);
    const before = this.#raised.get(key);
    if (before?.sentence === sentence) return;
    const sinceMs = before?.sinceMs ?? this.#clock.now();
    this.#raised.set(key, { code, severity: healthConditions[code].severity, subject, sentence, sinceMs });
    this.#publish();
  }

  #clear(code: HealthCode, subject: string | undefined): void {
    if (this.#raised.delete(keyOf(code, subject))) this.#publish();
  }

  #publish(): void {
    const isReady = ![...this.#raised.values()].some((condition) => condition.severity === "blocking");
    if (isReady !== this.ready.value) this.ready.set(isReady);
    for (const listener of [...this.#listeners]) listener();
  }

  /** Also causes of causes: a condition in the middle may not be raised itself. */
  #causes(code: string, raised: ReadonlySet<string>): readonly string[] {
    const seen = new Set<string>();
    const visit = (of: string) => {
      for (const cause of specs[of]?.dependsOn ?? []) {
        if (cause === code || seen.has(cause)) continue;
        seen.add(cause);
        visit(cause);
      }
    };
    visit(code);
    return [...seen].filter((cause) => raised.has(cause));
  }
}

function keyOf(code: HealthCode, subject: string | undefined): string {
  return `${code} ${subject ?? ""}`;
}
