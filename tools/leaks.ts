// What a process of test files has open, and whether the tests of a file have left something open.
import { readdirSync, readlinkSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/** Kinds of descriptors that a test must close: sockets, namespaces, pipes, devices; not what Node keeps for itself. */
const OWNED = /^(socket|net|mnt|pipe):|^\/dev\/(net|vfio)|^\/(proc|sys|tmp|var|run)\//;

/** What descriptors point to, by number. */
function openDescriptors(): Map<string, string> {
  const found = new Map<string, string>();
  for (const fd of readdirSync("/proc/self/fd")) {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`);
      if (OWNED.test(target)) found.set(fd, target);
    } catch {
      // the descriptor of the listing itself
    }
  }
  return found;
}

/** How long things may take to close after the last test: only a net, for a busy machine is slow. */
const PATIENCE_MS = Number(process.env["TEST_LEAK_PATIENCE_MS"] ?? 30_000);

const before = openDescriptors();

/** Handles that keep Node's loop alive; those of standard streams and of the report to the runner are there from the start. */
function activeHandles(): readonly string[] {
  return process
    .getActiveResourcesInfo()
    .filter((kind) => !/^(PipeWrap|TTYWrap|CloseReq|FSReqPromise|Immediate)$/.test(kind));
}

function leaked(): readonly string[] {
  return [...openDescriptors()].filter(([fd, target]) => before.get(fd) !== target).map(([, target]) => target);
}

/** Ends a process that something keeps open, after the time for its report to leave: it would otherwise live until its limit. */
export function endSoon(): void {
  setTimeout(() => process.exit(1), 2000).unref();
}

/**
 * Waits until what the tests of that file have opened is closed.
 * @param known what is open and not theirs
 * @throws where something stays open
 */
export async function failLeaks(file: string, known: readonly string[] = []): Promise<void> {
  const left = () => without(whatIsOpen(), known);
  // What was closed just now leaves the lists some turns of the loop later, on a busy machine many.
  const untilMs = Date.now() + PATIENCE_MS;
  while (Date.now() < untilMs && left().length > 0) await sleep(5);
  const stays = left();
  if (stays.length === 0) return;
  throw new Error(`The tests of ${file} are done and left open: ${stays.join(", ")}`);
}

/** Descriptors by what they point to, and handles by their kind. */
export function whatIsOpen(): readonly string[] {
  return [...leaked(), ...activeHandles()];
}

function without(all: readonly string[], some: readonly string[]): readonly string[] {
  const rest = [...some];
  return all.filter((one) => {
    const at = rest.indexOf(one);
    if (at >= 0) rest.splice(at, 1);
    return at < 0;
  });
}
