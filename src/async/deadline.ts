import type { Clock } from "./clock.ts";
import { guarded } from "./event-guard.ts";

/** A limit on one piece of work. */
interface Deadline {
  /** Aborted with a `DeadlineError` when the time is up, or with the parent's reason when the parent is aborted. */
  readonly signal: AbortSignal;
  /** Milliseconds that are left; 0 when the time is up. */
  leftMs(): number;
  /** The work is done: lets go of the timer and the parent. */
  end(): void;
}

/** The reason of a signal whose time is up. */
export class DeadlineError extends Error {
  override readonly name = "DeadlineError";
}

/** Starts a deadline of `limitMs` for `what` ("bind of 0000:3b:02.1 to iavf"), ended early when `parent` is aborted. */
export function startDeadline(
  clock: Clock,
  limitMs: number,
  options: { readonly what: string; readonly parent?: AbortSignal },
): Deadline {
  const controller = new AbortController();
  const endsAt = clock.monotonicMs() + limitMs;
  const timer = clock.after(limitMs, () =>
    controller.abort(new DeadlineError(`${options.what} took longer than ${limitMs} ms`)),
  );
  const parentAborted = guarded("abort", () => controller.abort(options.parent?.reason));
  if (options.parent?.aborted) parentAborted();
  options.parent?.addEventListener("abort", parentAborted, { once: true });
  return {
    signal: controller.signal,
    leftMs: () => Math.max(0, endsAt - clock.monotonicMs()),
    end() {
      timer.cancel();
      options.parent?.removeEventListener("abort", parentAborted);
    },
  };
}
