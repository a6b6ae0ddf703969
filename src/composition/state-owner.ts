// One forwarder works with a state folder at a time: a second one (a rolling update with surge, a pod that was deleted by force)
// says who has it, touches nothing of the node, and continues when the first has ended.
import type { Clock, UndoStack } from "../async/index.ts";
import { type ExclusiveLock, openStateFolder, type StateFolder } from "../kernel/index.ts";
import type { Host } from "../node/index.ts";
import type { Condition, Health, Log } from "../telemetry/index.ts";
import { version } from "../version.ts";

export interface StateOwnerOptions {
  /** NSM_STATE_PATH */
  readonly statePath: string;
  /** NSM_NAME, for a second forwarder that waits for this one. */
  readonly name: string;
  readonly host: Pick<Host, "locks" | "disk" | "random" | "watchFolder">;
  readonly health: Health;
  readonly clock: Clock;
  readonly log: Log;
  /** Gives the waiting up. */
  readonly signal: AbortSignal;
}

/** What a holder has written of itself; for the operator only, the lock is the kernel's. */
interface Holder {
  readonly name: string;
  readonly pid: number;
  readonly version: string;
  /** ISO 8601. */
  readonly since: string;
}

const HOLDER_FILE = "holder";
/** Longer texts were not written by a forwarder. */
const LONGEST_HOLDER = 1_000;

/** Between two checks whether the folder is still the one that was locked. */
const CHECK_MS = 5_000;

/**
 * Resolves when the state folder is ours, from then until the process ends or `undo` runs. One that was removed meanwhile is locked
 * again when it is there again.
 * @throws the file system's error; the signal's reason.
 */
export async function ownStateFolder(options: StateOwnerOptions, undo: UndoStack): Promise<void> {
  const held = options.health.condition("state-folder-held");
  const lock = await takeLock(options, held);
  undo.push("state folder", keepLock(options, held, lock));
}

/** Returns how to give it up. */
function keepLock(options: StateOwnerOptions, held: Condition, first: ExclusiveLock): () => void {
  const { statePath, clock, log } = options;
  const ended = new AbortController();
  const { signal } = ended;
  let lock = first;
  let lastProblem: string | undefined;
  const check = async () => {
    try {
      if (!lock.isCurrent()) {
        const next = await takeLock({ ...options, signal }, held);
        lock.release();
        lock = next;
        log.warn("state-folder-locked-again", { folder: statePath });
        if (signal.aborted) lock.release();
      }
      lastProblem = undefined;
    } catch (error) {
      const problem = String(error);
      if (!signal.aborted && problem !== lastProblem)
        log.error("state-folder-not-locked", { folder: statePath, problem });
      lastProblem = problem;
    }
    if (!signal.aborted) timer = clock.after(CHECK_MS, () => void check());
  };
  let timer = clock.after(CHECK_MS, () => void check());
  return () => {
    ended.abort(new Error("the forwarder stops"));
    timer.cancel();
    lock.release();
  };
}

async function takeLock(options: StateOwnerOptions, held: Condition): Promise<ExclusiveLock> {
  const { statePath, host, clock, log, signal } = options;
  const startedMs = clock.monotonicMs();
  let report: HolderReport | undefined;
  let lock: ExclusiveLock;
  try {
    const onHeld = () => {
      report ??= reportHolder(options, held);
      report.again();
    };
    lock = await host.locks.folder(statePath, { signal, onHeld });
  } finally {
    await report?.end();
  }
  held.clear();
  const waitedMs = Math.round(clock.monotonicMs() - startedMs);
  if (report) log.info("state-folder-claimed", { folder: statePath, waitedMs });
  await signHolder(await openStateFolder(statePath, host), options);
  return lock;
}

/** Who has the folder, reported as long as it is waited for. */
interface HolderReport {
  again(): void;
  /** Nothing is reported any more when this resolves. */
  end(): Promise<void>;
}

/** A holder writes its name some instants after it has the lock: the file is watched. */
function reportHolder({ statePath, host, clock, log }: StateOwnerOptions, held: Condition): HolderReport {
  let last: string | undefined;
  const report = async () => {
    const holder = describeHolder(await readHolder(statePath, host));
    if (holder === last) return;
    last = holder;
    log.warn("state-folder-held", { folder: statePath, holder });
    held.raise(
      `Another forwarder on this node has the state folder ${statePath}: ${holder}. Nothing is touched before it ends; then this one ` +
        "continues by itself. If it should have ended, look for its process on the node (fuser -v on the file lock in that folder)",
    );
  };
  let reporting = Promise.resolve();
  const again = () => {
    const failed = (error: unknown) => log.error("state-holder-unknown", { error: String(error) });
    reporting = reporting.then(report).catch(failed);
  };
  const folder = host.watchFolder(statePath, clock);
  let seen = folder.identity(HOLDER_FILE);
  folder.onChange(() => {
    const now = folder.identity(HOLDER_FILE);
    if (now !== seen) again(); // a journal that is written to is no news
    seen = now;
  });
  return {
    again,
    async end() {
      folder.close();
      await reporting;
    },
  };
}

/** "forwarder-1, process 7, version 0.1.0, since 2026-11-29T14:00:00.000Z", or that nothing is known. */
export function describeHolder(text: string | undefined): string {
  const holder = text === undefined || text.length > LONGEST_HOLDER ? undefined : parseHolder(text);
  if (!holder) return "it has not said who it is";
  return `${holder.name}, process ${holder.pid} as its container counts, version ${holder.version}, since ${holder.since}`;
}

function parseHolder(text: string): Holder | undefined {
  try {
    const { name, pid, version: itsVersion, since } = JSON.parse(text) as Record<string, unknown>;
    if (typeof name !== "string" || typeof itsVersion !== "string" || typeof since !== "string") return undefined;
    return typeof pid === "number" ? { name, pid, version: itsVersion, since } : undefined;
  } catch {
    return undefined;
  }
}

async function readHolder(statePath: string, host: StateOwnerOptions["host"]): Promise<string | undefined> {
  const folder = await openStateFolder(statePath, host);
  return await folder.read(HOLDER_FILE);
}

/** On a disk that is full or read-only it is not known who has the lock; the lock is ours all the same. */
async function signHolder(folder: StateFolder, { name, clock, log }: StateOwnerOptions): Promise<void> {
  const holder: Holder = { name, pid: process.pid, version, since: new Date(clock.now()).toISOString() };
  try {
    await folder.replace(HOLDER_FILE, `${JSON.stringify(holder)}\n`);
  } catch (error) {
    log.warn("state-holder-not-written", { folder: folder.path, error: String(error) });
  }
}
