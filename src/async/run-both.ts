/**
 * Runs both jobs at once. When one fails the other's signal is aborted, and both have ended before the failure is thrown:
 * the first one in time. What a job achieved in spite of the abort is for its `drop` to give back.
 */
export async function both<A, B>(signal: AbortSignal, first: Job<A>, second: Job<B>): Promise<readonly [A, B]> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  let failure: { readonly error: unknown } | undefined;
  const run = async <T>(job: Job<T>): Promise<{ readonly result: T } | undefined> => {
    try {
      return { result: await job.run(either) };
    } catch (error) {
      failure ??= { error };
      stop.abort(error);
      return undefined;
    }
  };
  const [a, b] = await Promise.all([run(first), run(second)]);
  if (a && b) return [a.result, b.result];
  if (a) first.drop?.(a.result);
  if (b) second.drop?.(b.result);
  throw failure?.error;
}

/** One of two jobs. */
interface Job<T> {
  run(signal: AbortSignal): Promise<T>;
  /** Gives back what `run` achieved, because the other job failed. Never throws. */
  drop?(result: T): void;
}
