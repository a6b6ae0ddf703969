import type { Clock } from "../async/index.ts";
import type { LinkPlace } from "../kernel/index.ts";
import { KernelError } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import { type Change, changeText } from "./change.ts";
import type { DesiredNetdev } from "./desired.ts";
import { NetdevError } from "./error.ts";
import type { Owned } from "./owned.ts";
import { planChanges } from "./plan.ts";
import { type ActualNetdev, readNetdev } from "./read.ts";
import type { Patience } from "./transient.ts";

/** One change can undo another (a last address takes the routes with it), so we read again; that often and no more. */
const PASSES = 3;
/** Duplicate address detection is skipped, so this is the time the kernel's own work queue takes. */
const TENTATIVE_LIMIT_MS = 2_000;
const TENTATIVE_READ_MS = 5;

interface ApplyInput {
  readonly session: LinkPlace;
  readonly ifindex: number;
  readonly desired: DesiredNetdev;
  readonly originalMtu: number;
  readonly first?: boolean;
  readonly owned: () => Owned;
  /** Called before the changes are made. */
  readonly own: (changes: readonly Change[]) => Promise<void>;
  readonly patience: Patience;
  readonly log: Log;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Makes a link as requested; writes nothing when it is so already.
 * @throws {NetdevError | KernelError} with the link in between: a later call continues from there.
 */
export async function applyDesired(input: ApplyInput): Promise<void> {
  let wrote = false;
  for (let pass = 1; ; pass++) {
    // Settings of the namespace may be refused (a user namespace knows few groups): they are tried in the first pass only.
    const first = input.first === true && pass === 1;
    const changes = planChanges({ ...input, first, owned: input.owned(), actual: await readActual(input) });
    if (changes.length === 0) break;
    if (pass > PASSES) {
      throw new NetdevError({ kind: "unsettled", link: input.desired.name, changes: changes.map(changeText) });
    }
    await input.own(changes);
    for (const change of changes) {
      input.signal?.throwIfAborted();
      await applyChange(input, change);
    }
    wrote = true;
  }
  if (wrote) await waitUntilUsable(input);
}

async function readActual({ session, ifindex, desired }: ApplyInput): Promise<ActualNetdev> {
  const actual = await readNetdev(session, ifindex, desired);
  if (!actual) throw new NetdevError({ kind: "gone", link: desired.name, where: "the client's namespace" });
  return actual;
}

/** Codes that say "is so already": the next read from the kernel shows whether it is. */
const ALREADY: Partial<Record<Change["kind"], readonly string[]>> = {
  "add-address": ["EEXIST"],
  "add-route": ["EEXIST"],
  "add-rule": ["EEXIST"],
  "remove-address": ["EADDRNOTAVAIL"],
  "remove-route": ["ESRCH"],
  "remove-rule": ["ENOENT"],
  "remove-neighbour": ["ENOENT"],
};

async function applyChange(input: ApplyInput, change: Change): Promise<void> {
  input.log.debug("netdev-change", { change: changeText(change) });
  try {
    await input.patience.run(changeText(change), () => run(input, change));
  } catch (error) {
    if (change.kind === "sysctl" && change.mayFail) {
      input.log.debug("netdev-change-refused", { change: changeText(change), error });
      return;
    }
    if (!(error instanceof KernelError)) throw error;
    if (change.kind === "rename" && error.code === "EEXIST") throw nameTaken(change.name, error);
    if (!ALREADY[change.kind]?.includes(error.code)) throw error;
  }
}

/** The error for a name that was taken between our read and our rename. */
function nameTaken(name: string, cause?: unknown): NetdevError {
  return new NetdevError({ kind: "name-taken", name, by: "another link" }, { cause });
}

async function run(input: ApplyInput, change: Change): Promise<void> {
  try {
    await runOnce(input, change);
  } catch (error) {
    // A reset has set it down: no route goes over it before it is up again.
    if (error instanceof KernelError && error.code === "ENETDOWN")
      await input.session.rtnl.setLink(input.ifindex, { up: true });
    throw error;
  }
}

async function runOnce({ session, ifindex }: ApplyInput, change: Change): Promise<void> {
  const { rtnl, netns } = session;
  switch (change.kind) {
    case "sysctl":
      return netns.writeSysctl(change.name, change.value);
    case "rename":
      // Kernels before 6.2 rename no link that is up.
      await rtnl.setLink(ifindex, { up: false });
      return rtnl.setLink(ifindex, { name: change.name });
    case "mac":
      await rtnl.setLink(ifindex, { up: false });
      return rtnl.setLink(ifindex, { address: change.mac });
    case "mtu":
      return rtnl.setLink(ifindex, { mtu: change.mtu });
    case "up":
      return rtnl.setLink(ifindex, { up: true });
    case "add-address":
      return rtnl.addAddress(change.address);
    case "remove-address":
      return rtnl.deleteAddress(change.address);
    case "add-route":
      return rtnl.addRoute(change.route);
    case "remove-route":
      return rtnl.deleteRoute(change.route);
    case "add-rule":
      return rtnl.addRule(change.rule);
    case "remove-rule":
      return rtnl.deleteRule(change.rule);
    case "add-neighbour":
      return rtnl.addNeighbour(change.neighbour);
    case "remove-neighbour":
      return rtnl.deleteNeighbour(change.neighbour);
  }
}

/** IPv6 addresses can be used a moment after they were added; IPv4 ones at once. */
async function waitUntilUsable(input: ApplyInput): Promise<void> {
  const mine = new Set(input.desired.addresses.filter((prefix) => prefix.family === 6).map((prefix) => prefix.address));
  if (mine.size === 0) return;
  const { session, ifindex, clock, desired } = input;
  const until = clock.monotonicMs() + TENTATIVE_LIMIT_MS;
  for (;;) {
    const addresses = await session.rtnl.addresses(ifindex, ({ address }) => mine.has(address));
    const duplicate = addresses.find((address) => address.duplicate);
    if (duplicate) throw new NetdevError({ kind: "address-duplicate", link: desired.name, address: duplicate.address });
    const waiting = addresses.find((address) => address.tentative);
    if (!waiting) return;
    if (!(await session.rtnl.linkByIndex(ifindex))?.carrier) {
      // It becomes usable when the wire comes back; until then there is no traffic to be lost.
      input.log.warn("netdev-has-no-carrier", { link: desired.name, address: waiting.address });
      return;
    }
    if (clock.monotonicMs() >= until) {
      const { address } = waiting;
      throw new NetdevError({ kind: "address-tentative", link: desired.name, address, afterMs: TENTATIVE_LIMIT_MS });
    }
    await clock.sleep(TENTATIVE_READ_MS, input.signal);
  }
}
