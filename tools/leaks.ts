// Loaded before each test file: fails the file when its tests are done and something it opened is still open.
import { readdirSync, readlinkSync } from "node:fs";
import { after } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { noteCost } from "./test-costs.ts";

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

process.on("exit", noteCost);

after(async () => {
  // What was closed just now leaves the lists some turns of the loop later, on a busy machine many.
  const untilMs = Date.now() + PATIENCE_MS;
  while (Date.now() < untilMs && (leaked().length > 0 || activeHandles().length > 0)) await sleep(5);
  const left = [...leaked(), ...activeHandles()];
  if (left.length === 0) return;
  // Time for the report to leave; an open handle would otherwise keep the process until its limit.
  setTimeout(() => process.exit(1), 2000).unref();
  throw new Error(`The tests of ${process.argv[1]} are done and left open: ${left.join(", ")}`);
});
