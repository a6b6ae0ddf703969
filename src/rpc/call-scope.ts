import { type Clock, guarded, type Timer } from "../async/index.ts";
import { RpcError } from "./status.ts";

export interface ScopeOptions {
  /** For dialling and the answer together, in ms. */
  readonly timeoutMs: number | undefined;
  /** The caller's own. */
  readonly signal: AbortSignal | undefined;
}

/** One outgoing call from before its dial to its end: its limit, its caller's signal, and the words for its errors. */
export class CallScope {
  /** "/package.Service/Method" */
  readonly path: string;
  readonly #what: string;
  readonly #clock: Clock;
  readonly #controller = new AbortController();
  readonly #endsAtMs: number | undefined;
  readonly #timer: Timer | undefined;
  readonly #letGo: () => void;

  constructor(clock: Clock, call: { readonly path: string; readonly target: string }, options: ScopeOptions) {
    const { timeoutMs, signal } = options;
    this.path = call.path;
    this.#what = `${call.path} at ${call.target}`;
    this.#clock = clock;
    if (timeoutMs !== undefined) {
      this.#endsAtMs = clock.monotonicMs() + timeoutMs;
      const late = () =>
        this.cancel(new RpcError("DEADLINE_EXCEEDED", `${this.#what} took longer than ${timeoutMs} ms`));
      this.#timer = clock.after(timeoutMs, guarded("timer", late));
    }
    // Not AbortSignal.any: a caller's signal may live as long as the process, and must forget the call when it is over.
    const aborted = guarded("abort", () => this.cancel(cancelled(signal?.reason)));
    if (signal?.aborted === true) aborted();
    signal?.addEventListener("abort", aborted, { once: true });
    this.#letGo = () => signal?.removeEventListener("abort", aborted);
  }

  /** Aborted with an `RpcError` when the call is to be given up. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** What is left of the limit, in ms; undefined without one. */
  leftMs(): number | undefined {
    return this.#endsAtMs === undefined ? undefined : Math.max(0, this.#endsAtMs - this.#clock.monotonicMs());
  }

  cancel(error: RpcError): void {
    if (!this.signal.aborted) this.#controller.abort(error);
  }

  /** What the caller gets for an error on the way. */
  failure(error: unknown): RpcError {
    if (error instanceof RpcError) return error;
    const text = error instanceof Error ? error.message : String(error);
    return new RpcError("INTERNAL", `Cannot call ${this.#what}: ${text}`, { cause: error });
  }

  /** The call is over. */
  end(): void {
    this.#timer?.cancel();
    this.#letGo();
  }
}

function cancelled(reason: unknown): RpcError {
  if (reason instanceof RpcError) return reason;
  const isTimeout = reason instanceof Error && (reason.name === "TimeoutError" || reason.name === "DeadlineError");
  const text = reason instanceof Error ? reason.message : String(reason);
  return new RpcError(isTimeout ? "DEADLINE_EXCEEDED" : "CANCELLED", text, { cause: reason });
}
