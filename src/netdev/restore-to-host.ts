import type { Clock } from "../async/index.ts";
import type { LinkPlace } from "../kernel/index.ts";
import { isUpperOf, KernelError, type Link, type SetLink } from "../kernel/index.ts";
import type { LinkIdentity } from "./attachment-state.ts";
import { ClearingTime, isNotCleared } from "./clearing-time.ts";
import { NetdevError } from "./error.ts";
import { setLinkMac, spareMac } from "./link-mac.ts";
import { findInClient } from "./move.ts";
import { OUR_PROTOCOL, type Owned, ownsRule } from "./owned.ts";
import { readOwnTables } from "./read.ts";
import { MacRestore } from "./restore-mac.ts";
import { giveAltName, giveName, isMisnamed, type OthersNames } from "./restore-name.ts";
import type { Patience } from "./transient.ts";
import type { VfIdentity } from "./verify-link.ts";
import { awaitInHost, hostLinkOf, isVanished, type VfLink } from "./vf-link.ts";
import { type PfPort, restoreVfSettings, type VfSettings } from "./vf-settings-through-pf.ts";

/** Something that is not as it was before the link went out. */
export interface NotRestored {
  /** "link", "rules", "name", "mtu", "address", "altnames", "up" or "vf <setting>". */
  readonly what: string;
  readonly error: unknown;
}

interface RestoreInput {
  readonly host: LinkPlace;
  /** undefined: the namespace has died, or there is no handle of it. */
  readonly client: LinkPlace | undefined;
  readonly identity: LinkIdentity;
  /** Whose link it is. */
  readonly of: VfIdentity;
  readonly owned: Owned;
  readonly vf: { readonly port: PfPort; readonly index: number; readonly before: VfSettings };
  readonly vfLink: VfLink;
  /** The link went while we worked on it: it is expected, though it is nowhere. */
  readonly isAway: boolean;
  readonly patience: Patience;
  readonly clock: Clock;
  readonly othersNames: OthersNames;
}

/** For what a pod may have made without number, while a Close or a Request waits: the device that comes next has none of it. */
const CLEARING_LIMIT_MS = 1_000;

/** More than can be removed in that time, and than a link has by Requests: they are the pod's, and stay in its namespace. */
const MOST_RULES = 16_384;

/** So often a link may go and come back while it is restored. */
const RETURNS = 3;

/**
 * Returns a link to the host and restores it, from whatever state an attempt was left in. Continues past failures and
 * returns them; empty when nothing of the client is left. The second call does what the first could not. As in `returnToHost` a link
 * stays, with the PF's settings, where more lies on it than can be removed in time: then its driver has to make another one.
 */
export async function restoreToHost(input: RestoreInput): Promise<NotRestored[]> {
  const failures: NotRestored[] = [];
  const attempt = attemptInto(failures);
  const isExpected = (await fetchOut(input, attempt)) || (await isInHost(input));
  if (failures.some(({ what, error }) => what === "link" && isNotCleared(error))) return failures;
  await attempt("vf settings", () => restoreVf(input, failures));
  const macRestore = macRestoreOf(input);
  for (let left = RETURNS; ; left--) {
    const found = await restoreOnce(input, { isExpected, macRestore });
    if (left > 0 && found.some(({ error }) => isVanished(error)) && isExpected) continue;
    // Last of all: a VF whose PF names an address may not let its link have another one.
    if (macRestore) await attempt("vf mac", () => macRestore.finish());
    return [...failures, ...found];
  }
}

/**
 * The first part of it: the link leaves the client's namespace, and the PF's settings are what they were, but for the address, which
 * the link has part in. They stay as long as the link does: without its VLAN the client would be in another network. And the link stays
 * where more lies on it than can be removed in time, for that would hear and send on it in the host.
 */
export async function returnToHost(input: RestoreInput): Promise<NotRestored[]> {
  const failures: NotRestored[] = [];
  const attempt = attemptInto(failures);
  await fetchOut(input, attempt);
  if (await isInHost(input)) await attempt("vf settings", () => restoreVf(input, failures));
  return failures;
}

/** Out of the client's namespace. Whether the link is expected in the host from here on. */
async function fetchOut(input: RestoreInput, attempt: Attempt): Promise<boolean> {
  const { client, clock, identity } = input;
  const time = new ClearingTime(clock, { link: identity.original.name, limitMs: CLEARING_LIMIT_MS });
  let isExpected = input.isAway;
  if (!client) return isExpected;
  // First of all: rules would send the client's packets into tables that the leaving link empties.
  await attempt("rules", () => removeRules(client, input, time));
  await attempt("link", async () => {
    isExpected = (await moveOut(client, input, time)) || isExpected;
  });
  return isExpected;
}

/** What keeps it from being found, the next search reports. */
async function isInHost(input: RestoreInput): Promise<boolean> {
  return (await hostLinkOf(input.host, input.identity, input).catch(() => undefined)) !== undefined;
}

function macRestoreOf({ vf, identity, patience }: RestoreInput): MacRestore | undefined {
  const before = vf.before.mac;
  return before === undefined ? undefined : new MacRestore(vf, { before, own: identity.original.address }, patience);
}

type Attempt = (what: string, act: () => Promise<void>) => Promise<void>;

function attemptInto(failures: NotRestored[]): Attempt {
  return async (what, act) => {
    try {
      await act();
    } catch (error) {
      failures.push({ what, error });
    }
  };
}

/** Finds the link in the host, waiting for it where it is expected there, and makes it what it was. */
async function restoreOnce(
  input: RestoreInput,
  { isExpected, macRestore }: { readonly isExpected: boolean; readonly macRestore: MacRestore | undefined },
): Promise<NotRestored[]> {
  const failures: NotRestored[] = [];
  const attempt = attemptInto(failures);
  const { host, identity, of, vfLink, patience } = input;
  let link: Link | undefined;
  await attempt("link", async () => {
    link = await hostLinkOf(host, identity, { of, vfLink });
    // The PF's settings may have reset the VF, and its driver makes the link again.
    if (!link && isExpected) link = await awaitInHost(host, identity, { of, vfLink, patience });
    if (!link) throw new NetdevError({ kind: "gone", link: identity.original.name, where: "the host's namespace" });
  });
  if (link) await restoreLink(input, { link, macRestore, attempt });
  return failures;
}

/** Needs no link: rules are known by their mark and their tables. */
async function removeRules(client: LinkPlace, { identity, owned }: RestoreInput, time: ClearingTime): Promise<void> {
  const { rtnl } = client;
  const tables = new Set(await readOwnTables(client, identity.clientIndex ?? 0, owned));
  if (tables.size === 0) return;
  const rules = await rtnl.rules((actual) => ownsRule(tables, actual), { most: MOST_RULES });
  await time.removeEach("rules", rules, (rule) =>
    rtnl.deleteRule({ ...rule, protocol: OUR_PROTOCOL }).catch((error: unknown) => {
      if (!(error instanceof KernelError) || error.code !== "ENOENT") throw error;
    }),
  );
}

/** Whether it was there. */
async function moveOut(client: LinkPlace, input: RestoreInput, time: ClearingTime): Promise<boolean> {
  const { host, identity, of, patience } = input;
  const link = await findInClient(client, identity, of);
  if (!link) return false;
  try {
    // Down first: the client must not see it leave while packets are on it, and only a link that is down can be renamed.
    await patience.run("set the link down", () => client.rtnl.setLink(link.index, { up: false }));
    await removeUppers(client, link, time);
    // The pod's: one that the host has already would stop the move (EEXIST), any other would be a name of the host from then on.
    const theirs = link.altNames.length > 0 && { removeAltNames: link.altNames };
    const there = { netns: host.netns, name: identity.temporaryName, ...theirs };
    await patience.run("move the link", () => client.rtnl.setLink(link.index, there));
  } catch (error) {
    // Gone meanwhile: the next read in the host says it.
    if (!isVanished(error)) throw error;
  }
  return true;
}

/**
 * A macvlan or VLAN that the pod has laid on the link stays when the link leaves (macvlan_device_event, vlan_device_event: nothing
 * to do for a move), and would hear and send on it beside the client that gets the VF next.
 */
async function removeUppers({ rtnl }: LinkPlace, link: Link, time: ClearingTime): Promise<void> {
  const uppers = (await rtnl.linksNamedOrAbove(new Set())).filter((one) => isUpperOf(one, link.index));
  await time.removeEach("links", uppers, (upper) =>
    rtnl.deleteLink(upper.index).catch((error: unknown) => {
      if (!isVanished(error)) throw error;
    }),
  );
}

/** All but the address. */
async function restoreVf({ vf, patience }: RestoreInput, failures: NotRestored[]): Promise<void> {
  const { mac: _, ...before } = vf.before;
  const faults = await restoreVfSettings(vf.port, vf.index, { before, ownMac: undefined, patience });
  for (const { setting, error } of faults) failures.push({ what: `vf ${setting}`, error });
}

interface RestoreLink {
  readonly link: Link;
  readonly macRestore: MacRestore | undefined;
  readonly attempt: Attempt;
}

async function restoreLink(input: RestoreInput, { link, macRestore, attempt }: RestoreLink): Promise<void> {
  const { host, identity, patience, clock } = input;
  const { original } = identity;
  const { index } = link;
  const setLink = (change: SetLink) =>
    patience.run(`set ${Object.keys(change).join(", ")} of the link`, () => host.rtnl.setLink(index, change));
  const changed = { name: isMisnamed(input, link), mtu: link.mtu !== original.mtu };
  const isInDoubt = await isMacInDoubt(macRestore, attempt);
  const mac = original.address === link.address && !isInDoubt ? undefined : original.address;
  const altNames = original.altNames.filter((name) => !link.altNames.includes(name));
  if (link.up && (changed.name || mac !== undefined)) await attempt("name", () => setLink({ up: false }));
  if (changed.name) await attempt("name", () => giveName(input, link));
  if (changed.mtu) await attempt("mtu", () => setLink({ mtu: original.mtu }));
  if (mac !== undefined) {
    await attempt("address", async () => {
      const set = (address: string) => setLinkMac({ session: host, ifindex: index, mac: address, patience, clock });
      const isFree = await macRestore?.makeWay();
      // A driver does not hear of an address that stays the same, and so the PF would not.
      if (isFree && isInDoubt && link.address === mac) await set(spareMac(mac));
      await set(mac);
    });
  }
  for (const name of altNames) await attempt("altnames", () => giveAltName(host, index, name));
  const up = (await host.rtnl.linkByIndex(index))?.up ?? false;
  if (up !== original.up) await attempt("up", () => setLink({ up: original.up }));
}

async function isMacInDoubt(macRestore: MacRestore | undefined, attempt: Attempt): Promise<boolean> {
  let answer = false;
  await attempt("vf mac", async () => {
    answer = (await macRestore?.isInDoubt()) ?? false;
  });
  return answer;
}
