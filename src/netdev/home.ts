import type { Clock } from "../async/index.ts";
import { KernelError, type Link } from "../kernel/index.ts";
import { NetdevError } from "./error.ts";
import { setLinkMac } from "./mac.ts";
import { findInClient, findInHost, type LinkIdentity, rename } from "./move.ts";
import { OUR_PROTOCOL, type Owned, ownsRule, ownTables } from "./owned.ts";
import type { Session } from "./read.ts";
import { type PfPort, restoreVfSettings, type VfSettings } from "./vf-settings.ts";

/** Something that is not as it was before the link went out. */
export interface NotRestored {
  /** "link", "rules", "name", "mtu", "address", "altnames", "up" or "vf <setting>". */
  readonly what: string;
  readonly error: unknown;
}

export interface HomeInput {
  readonly host: Session;
  /** undefined: the namespace has died, or nobody has a handle of it. */
  readonly client: Session | undefined;
  readonly identity: LinkIdentity;
  readonly owned: Owned;
  readonly vf?: { readonly port: PfPort; readonly index: number; readonly before: VfSettings } | undefined;
  readonly clock: Clock;
}

/**
 * Brings a link home and makes it what it was, from whatever state an attempt was left in. Goes on past failures and
 * tells them; empty when nothing of the client is left. The second call does what the first could not.
 */
export async function bringHome(input: HomeInput): Promise<NotRestored[]> {
  const failures: NotRestored[] = [];
  const attempt = async (what: string, act: () => Promise<void>): Promise<void> => {
    try {
      await act();
    } catch (error) {
      failures.push({ what, error });
    }
  };
  const { client } = input;
  if (client) {
    // First of all: rules would send the client's packets into tables that the leaving link empties.
    await attempt("rules", () => removeRules(client, input));
    await attempt("link", () => moveOut(client, input));
  }
  await attempt("vf settings", () => restoreVf(input, failures));
  let link: Link | undefined;
  await attempt("link", async () => {
    link = await findInHost(input.host, input.identity);
    const where = "the host's namespace";
    if (!link) throw new NetdevError({ kind: "gone", link: input.identity.original.name, where });
  });
  if (link) await restoreLink(input, link, attempt);
  return failures;
}

/** Needs no link: rules are told by their mark and their tables. */
async function removeRules(client: Session, { identity, owned }: HomeInput): Promise<void> {
  const { rtnl } = client;
  const tables = ownTables(identity.clientIndex ?? 0, await rtnl.routes(), owned);
  if (tables.length === 0) return;
  for (const rule of (await rtnl.rules()).filter((standing) => ownsRule(tables, standing))) {
    await rtnl.deleteRule({ ...rule, protocol: OUR_PROTOCOL }).catch((error: unknown) => {
      if (!(error instanceof KernelError) || error.code !== "ENOENT") throw error;
    });
  }
}

async function moveOut(client: Session, { host, identity }: HomeInput): Promise<void> {
  const link = await findInClient(client, identity);
  // Down first: the client must not see it leave while packets are on it, and only a link that is down can be renamed.
  if (link) {
    await client.rtnl.setLink(link.index, { up: false });
    await client.rtnl.setLink(link.index, { netns: host.netns, name: identity.temporaryName });
  }
}

async function restoreVf({ vf, identity }: HomeInput, failures: NotRestored[]): Promise<void> {
  if (!vf) return;
  const ownMac = identity.original.address;
  for (const { setting, error } of await restoreVfSettings(vf.port, vf.index, { before: vf.before, ownMac })) {
    failures.push({ what: `vf ${setting}`, error });
  }
}

type Attempt = (what: string, act: () => Promise<void>) => Promise<void>;

async function restoreLink({ host, identity, vf, clock }: HomeInput, link: Link, attempt: Attempt): Promise<void> {
  const { original } = identity;
  const { rtnl } = host;
  const { index } = link;
  const changed = { name: link.name !== original.name, mtu: link.mtu !== original.mtu };
  const mac = original.address === link.address ? undefined : original.address;
  const altNames = original.altNames.filter((name) => !link.altNames.includes(name));
  if (link.up && (changed.name || mac !== undefined)) await attempt("name", () => rtnl.setLink(index, { up: false }));
  if (changed.name) await attempt("name", () => giveName(host, index, original.name));
  if (changed.mtu) await attempt("mtu", () => rtnl.setLink(index, { mtu: original.mtu }));
  if (mac !== undefined) await attempt("address", () => setLinkMac({ session: host, ifindex: index, mac, vf, clock }));
  for (const name of altNames) await attempt("altnames", () => rtnl.setLink(index, { addAltNames: [name] }));
  const up = (await rtnl.linkByIndex(index))?.up ?? false;
  if (up !== original.up) await attempt("up", () => rtnl.setLink(index, { up: original.up }));
}

/**
 * Its own name; where another link has it by now, the next free one of the kernel's: whoever waits for a name that comes and
 * goes with other VFs (the kernel calls the next new one as the one that is away) might wait for ever.
 */
async function giveName(host: Session, ifindex: number, name: string): Promise<void> {
  try {
    await rename(host, ifindex, name);
  } catch (error) {
    if (!(error instanceof NetdevError) || error.fault.kind !== "name-taken") throw error;
    await host.rtnl.setLink(ifindex, { name: "eth%d" });
  }
}
