// What wakes those who wait for a driver: the kernel's news of links, and time.
import type { Clock } from "../async/index.ts";
import type { Link, LinkPlace, NetlinkEvent } from "../kernel/index.ts";
import type { NextSign } from "./transient.ts";

/** Signs of one link, in the namespaces where it may be. */
interface LinkSigns {
  readonly next: NextSign;
  /** Stops listening. */
  close(): void;
}

/** Time alone: for settings that a PF takes without any news of it. */
export function signsOfTime(clock: Clock): NextSign {
  return (waitMs, signal) => clock.sleep(waitMs, signal);
}

/**
 * Listens from the first wait on: a driver that is ready at once costs nothing. A driver does not report that its reset is over,
 * but its link goes, comes, or changes its carrier then.
 */
export function linkSigns(
  sessions: readonly LinkPlace[],
  { clock, concerns }: { readonly clock: Clock; readonly concerns: (link: Link) => boolean },
): LinkSigns {
  let stops: readonly (() => void)[] | undefined;
  let wake = () => {};
  const hear = (event: NetlinkEvent) => {
    if (event.kind === "lost" || ("link" in event && concerns(event.link))) wake();
  };
  return {
    async next(waitMs, signal) {
      stops ??= sessions.map(({ rtnl }) => rtnl.watch(["link"], hear));
      const ended = new AbortController();
      const either = signal ? AbortSignal.any([signal, ended.signal]) : ended.signal;
      wake = () => ended.abort();
      try {
        await clock.sleep(waitMs, either);
      } catch (error) {
        if (!ended.signal.aborted) throw error;
      }
    },
    close() {
      for (const stop of stops ?? []) stop();
      stops = [];
    },
  };
}
