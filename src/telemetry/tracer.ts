/** Facts about a span. Never a token or a key. */
export type SpanFacts = Readonly<Record<string, string>>;

/** Follows calls through this process and on to the next: spans of distributed traces. */
export interface Tracer {
  /** Does the work as one span, part of the caller's trace where its headers name one (W3C trace context). */
  serve<T>(
    name: string,
    headers: ReadonlyMap<string, readonly string[]>,
    facts: SpanFacts,
    work: () => Promise<T>,
  ): Promise<T>;
  /** Does the work as a step of the span that is under way; without one it is just done. */
  step<T>(name: string, work: () => Promise<T>): Promise<T>;
  /** Headers for a peer whose spans belong to the one that is under way. */
  headers(): Readonly<Record<string, string>>;
}

/** Follows nothing. */
export const noTracer: Tracer = {
  serve: (_name, _headers, _facts, work) => work(),
  step: (_name, work) => work(),
  headers: () => ({}),
};
