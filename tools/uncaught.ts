// What a test process does with an error that no one catches. Node's runner has hooks on every promise to know the test of such an
// error; they took a fifth of the processor time of our tests, and the error is a bug whichever test made it.
import { type AsyncHook, createHook } from "node:async_hooks";
import { endSoon } from "./leaks.ts";

/** The runner's hooks: while they are off it does not know of which suite a test is that is made. */
export interface RunnerHooks {
  follow(): void;
  rest(): void;
}

/** Ends the process at an uncaught error, which then fails its file. To be called before the first test is made; the hooks are off. */
export function failUncaught(): RunnerHooks {
  for (const event of ["uncaughtException", "unhandledRejection"]) process.on(event, report);
  const prototype = Object.getPrototypeOf(createHook({})) as AsyncHook;
  const { enable } = prototype;
  let runners: AsyncHook | undefined;
  let isFollowing = false;
  // The runner's are the first that are enabled: a test's own come later.
  prototype.enable = function (this: AsyncHook) {
    prototype.enable = enable;
    runners = this;
    return isFollowing ? this.enable() : this;
  };
  return {
    follow() {
      isFollowing = true;
      runners?.enable();
    },
    rest() {
      isFollowing = false;
      runners?.disable();
    },
  };
}

function report(error: unknown): void {
  process.stderr.write(`\n✖ uncaught: ${error instanceof Error ? error.stack : String(error)}\n`);
  process.exitCode = 1;
  endSoon();
}
