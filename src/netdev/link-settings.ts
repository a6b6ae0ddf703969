// Everything that can be set of a link, as it is before a client gets it and when it is back: what, and what not, is in link-setting-names.ts.
import {
  Errno,
  EthtoolIoctl,
  KernelError,
  LinkControl,
  type LinkPlace,
  type RawAttribute,
  type RawLink,
  rawAttributes,
  tcxProgramsOf,
} from "../kernel/index.ts";
import { ETHTOOL_KINDS, type EthtoolKind } from "./ethtool-settings.ts";
import {
  FLAG_NAMES,
  IGNORED_LINK_ATTRIBUTES,
  isComparedFlag,
  LINK_ATTRIBUTE_NAMES,
  LinkAttribute,
} from "./link-setting-names.ts";
import { isText, settingText } from "./setting-text.ts";

/**
 * One text for each setting, compared as such. To be kept in a journal, for as long as this kernel runs: numbers of programs and
 * of feature bits are another kernel's otherwise.
 */
export type LinkSettings = Readonly<Record<string, string>>;

/** A setting that is not what it was; undefined where it was, or is, not there. */
export interface SettingDifference {
  readonly setting: string;
  readonly before: string | undefined;
  readonly after: string | undefined;
}

/** The link, by both that it is known by. */
export interface NamedLink {
  readonly index: number;
  readonly name: string;
}

/** IFLA_XDP_*, include/uapi/linux/if_link.h: the program of each mode. */
export const XDP_PROGRAM_OF = { drv: 5, skb: 6, hw: 7 } as const;
export const XDP_MODES = ["drv", "skb", "hw"] as const;
const IFLA_ALT_IFNAME = 53;
const FLAG_OF_USERS = { [LinkAttribute.PROMISCUITY]: "promisc", [LinkAttribute.ALLMULTI]: "allmulti" } as const;
const NOT_NOW: readonly string[] = ["ENODEV", "EBUSY", "EAGAIN", "EINTR", "ENOBUFS", "ENOMEM"];

/**
 * Reads all settings of a link; changes nothing. Whether it is up must be the same at both readings that are compared: drivers make
 * up some of what they say when they come up.
 * @throws {KernelError} ENODEV when the link has gone, or its driver has detached it; EAGAIN when it was renamed meanwhile.
 */
export async function readLinkSettings({ netns }: Pick<LinkPlace, "netns">, link: NamedLink): Promise<LinkSettings> {
  const control = await LinkControl.open(netns);
  try {
    return await readSettings({ netns, control }, link);
  } finally {
    control.close();
  }
}

/** The same over sockets that are open. */
export async function readSettings(
  { netns, control }: Pick<LinkPlace, "netns"> & { readonly control: LinkControl },
  link: NamedLink,
): Promise<LinkSettings> {
  // What goes by name first: the name that is read after it says whose it was.
  const byName = await readByName(netns, link);
  const raw = await control.read(
    link.index,
    ETHTOOL_KINDS.map(({ get }) => get),
  );
  if (raw.name !== link.name) {
    throw new KernelError(`read the settings of link "${link.name}"`, Errno.EAGAIN, `it is called "${raw.name}" now`);
  }
  return {
    ...byName,
    ...settingsOf(raw),
    ...Object.fromEntries(tcxTexts(netns, link.index)),
  };
}

/** What is said by netlink of a link, and by its driver. @throws {KernelError} where that cannot say it now. */
export function settingsOf(raw: RawLink): LinkSettings {
  const byDriver = ETHTOOL_KINDS.flatMap((kind) => ethtoolTexts(kind, raw.ethtool.get(kind.get)));
  return Object.fromEntries([...linkTexts(raw), ...byDriver]);
}

/**
 * What is not as before. Of those that use the link promiscuously, besides its own flag, only more are a difference: those before
 * were of the host.
 */
export function linkDifferences(before: LinkSettings, after: LinkSettings): readonly SettingDifference[] {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  const found = names.map((setting) => ({ setting, before: before[setting], after: after[setting] }));
  return found.filter((one) => one.before !== one.after && !isFewerUsers(one));
}

function isFewerUsers({ setting, before, after }: SettingDifference): boolean {
  return setting.endsWith(" users") && Number(after ?? 0) <= Number(before ?? 0);
}

type Entry = readonly [setting: string, text: string];

function linkTexts({ flags, attributes }: RawLink): Entry[] {
  const compared = attributes.filter(({ type }) => !Object.hasOwn(IGNORED_LINK_ATTRIBUTES, type));
  return [
    ...flagTexts(flags),
    ...compared.map(({ type, value }): Entry => [linkSettingName(type), settingText(value, isText(type))]),
    ...attributes.flatMap((attribute) => usersText(attribute, flags)),
    ...attributes.flatMap(partsText),
  ];
}

export function linkSettingName(type: number): string {
  return LINK_ATTRIBUTE_NAMES[type] ?? `attribute ${type}`;
}

function flagTexts(flags: number): Entry[] {
  const bits = Array.from({ length: 32 }, (_, bit) => bit).filter(
    (bit) => (flags & (1 << bit)) !== 0 && isComparedFlag(bit),
  );
  return bits.map((bit) => [flagSettingName(bit), "on"]);
}

export function flagSettingName(bit: number): string {
  return `flag ${FLAG_NAMES[bit] ?? bit}`;
}

function usersText({ type, value }: RawAttribute, flags: number): Entry[] {
  if (type !== LinkAttribute.PROMISCUITY && type !== LinkAttribute.ALLMULTI) return [];
  const flag = FLAG_OF_USERS[type];
  const own = (flags >> FLAG_NAMES.indexOf(flag)) & 1;
  const others = value.readUInt32LE() - own;
  return others > 0 ? [[`${flag} users`, String(others)]] : [];
}

/** Of attributes that have parts: each program of XDP, and each altname, is a setting. */
function partsText({ type, value }: RawAttribute): Entry[] {
  const parts = rawAttributes(value);
  if (type === LinkAttribute.PROP_LIST) {
    const names = parts.filter((part) => part.type === IFLA_ALT_IFNAME);
    return names.map((part) => [altNameSetting(part.value.toString("utf8").replace(/\0.*$/s, "")), "on"]);
  }
  if (type !== LinkAttribute.XDP) return [];
  return XDP_MODES.flatMap((mode) => {
    const program = parts.find((part) => part.type === XDP_PROGRAM_OF[mode]);
    return program ? [[`xdp ${mode}`, `program ${program.value.readUInt32LE()}`]] : [];
  });
}

export function altNameSetting(name: string): string {
  return `altname ${name}`;
}

function ethtoolTexts(kind: EthtoolKind, answer: readonly RawAttribute[] | KernelError | undefined): Entry[] {
  if (answer === undefined) return [];
  if (answer instanceof KernelError) {
    const text = refusalText(answer);
    return kind.byIoctl ? [] : [[kind.name, text]]; // what the ioctl has answered counts
  }
  const compared = answer.filter(({ type }) => !Object.hasOwn(kind.ignored ?? {}, type));
  const texts = compared.map(({ type, value }): Entry => [ethtoolSettingName(kind, type), settingText(value)]);
  return kind.byIoctl ? [[kind.name, "by netlink"], ...texts] : texts; // in place of the ioctl's answer to the same
}

export function ethtoolSettingName({ name, names }: EthtoolKind, type: number): string {
  return `${name} ${names[type] ?? type}`;
}

/** That a kernel or a driver does not have it is an answer. @throws {KernelError} where it cannot say it now. */
function refusalText(error: unknown): string {
  if (error instanceof KernelError && !NOT_NOW.includes(error.code)) return error.code;
  throw error;
}

function tcxTexts(netns: LinkPlace["netns"], ifindex: number): Entry[] {
  return (["ingress", "egress"] as const).flatMap((direction): Entry[] => {
    try {
      const programs = tcxProgramsOf(netns, ifindex, direction);
      return programs.length === 0 ? [] : [[`tcx ${direction}`, `program ${programs.join(", ")}`]];
    } catch (error) {
      return [[`tcx ${direction}`, refusalText(error)]];
    }
  });
}

async function readByName(netns: LinkPlace["netns"], { name }: NamedLink): Promise<LinkSettings> {
  const ioctl = EthtoolIoctl.open(netns, name);
  try {
    return {
      "ntuple rules": await ioctl.ruleCount().then(String, refusalText),
      rss: await ioctl.rss().then((table) => settingText(table), refusalText),
      timestamping: await ioctl.timestamping().then((config) => settingText(config), refusalText),
    };
  } finally {
    ioctl.close();
  }
}
