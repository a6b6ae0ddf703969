import {
  bitsetChange,
  type KernelError,
  LinkControl,
  type LinkPlace,
  type LinkWrite,
  type WrittenAttribute,
} from "../kernel/index.ts";
import { ETHTOOL_KINDS, type EthtoolKind } from "./ethtool-settings.ts";
import { FLAG_NAMES, isSettableFlag, LinkAttribute } from "./link-setting-names.ts";
import {
  altNameSetting,
  ethtoolSettingName,
  flagSettingName,
  type LinkSettings,
  linkDifferences,
  linkSettingName,
  type NamedLink,
  readSettings,
  type SettingDifference,
  XDP_MODES,
} from "./link-settings.ts";
import { settingValue } from "./setting-text.ts";

/** A setting that is still not what it was. */
export interface NotRestoredSetting extends SettingDifference {
  /** Why the kernel refused it; undefined where nothing can write it, or the write changed nothing. */
  readonly error: KernelError | undefined;
}

/** What became of the settings of a link that has been with a client. */
export interface RestoredSettings {
  /** What was written and is as before now. */
  readonly restored: readonly SettingDifference[];
  /** For these the driver has to make the device again. */
  readonly remaining: readonly NotRestoredSetting[];
}

/** A change, and the settings that it is for. */
interface PlannedWrite {
  readonly write: LinkWrite;
  readonly settings: readonly string[];
}

/** A setting may wait for another one: a driver with an XDP program takes fewer features. */
const ROUNDS = 2;
/** Written one by one, so that one that is refused keeps none of the others. */
const SETTABLE_ATTRIBUTES: readonly number[] = [
  LinkAttribute.TXQLEN,
  LinkAttribute.LINKMODE,
  LinkAttribute.IFALIAS,
  LinkAttribute.GROUP,
  LinkAttribute.BROADCAST,
  LinkAttribute.PROTO_DOWN,
  LinkAttribute.GSO_MAX_SEGS,
  LinkAttribute.GSO_MAX_SIZE,
  LinkAttribute.GRO_MAX_SIZE,
  LinkAttribute.GSO_IPV4_MAX_SIZE,
  LinkAttribute.GRO_IPV4_MAX_SIZE,
];

/**
 * Gives a link the settings back that it had, as far as netlink can; writes nothing that is so already, and reads back.
 * @throws {KernelError} as `readLinkSettings`.
 */
export async function restoreLinkSettings(
  { netns }: Pick<LinkPlace, "netns">,
  link: NamedLink,
  before: LinkSettings,
): Promise<RestoredSettings> {
  const control = await LinkControl.open(netns);
  try {
    const read = () => readSettings({ netns, control }, link);
    return await restoreBy({ read, write: (writes) => control.write(link.index, writes) }, before);
  } finally {
    control.close();
  }
}

/** How the settings of one link are read and written. */
interface SettingsOfLink {
  readonly read: () => Promise<LinkSettings>;
  /** Answers for each why it was refused. */
  readonly write: (writes: readonly LinkWrite[]) => Promise<readonly (KernelError | undefined)[]>;
}

/** The same whatever reads and writes them. */
export async function restoreBy(door: SettingsOfLink, before: LinkSettings): Promise<RestoredSettings> {
  const found = linkDifferences(before, await door.read());
  let left = found;
  let refusals: ReadonlyMap<string, KernelError> = new Map();
  for (let round = 1; round <= ROUNDS; round++) {
    const planned = plannedWrites(left);
    if (planned.length === 0) break;
    refusals = await writeAll(door, planned);
    left = linkDifferences(before, await door.read());
  }
  const restored = found.filter(({ setting }) => !left.some((one) => one.setting === setting));
  return { restored, remaining: left.map((one) => ({ ...one, error: refusals.get(one.setting) })) };
}

async function writeAll(
  { write: writeTo }: SettingsOfLink,
  planned: readonly PlannedWrite[],
): Promise<ReadonlyMap<string, KernelError>> {
  const refusals = await writeTo(planned.map(({ write }) => write));
  return new Map(
    planned.flatMap(({ settings }, at) => {
      const refusal = refusals[at];
      return refusal ? settings.map((setting) => [setting, refusal] as const) : [];
    }),
  );
}

/** What can be written of the differences. XDP first: it keeps drivers from other changes. */
export function plannedWrites(differences: readonly SettingDifference[]): readonly PlannedWrite[] {
  const bySetting = new Map(differences.map((difference) => [difference.setting, difference]));
  return [
    ...xdpWrites(bySetting),
    ...flagWrites(bySetting),
    ...SETTABLE_ATTRIBUTES.flatMap((type) => attributeWrites(type, bySetting)),
    ...altNameWrites(differences),
    ...ETHTOOL_KINDS.flatMap((kind) => ethtoolWrites(kind, bySetting)),
  ];
}

type BySetting = ReadonlyMap<string, SettingDifference>;

function xdpWrites(bySetting: BySetting): readonly PlannedWrite[] {
  const detached = XDP_MODES.filter((mode) => bySetting.get(`xdp ${mode}`)?.after !== undefined);
  return detached.map((mode) => {
    return { write: { kind: "xdp-off", mode }, settings: [`xdp ${mode}`] };
  });
}

function flagWrites(bySetting: BySetting): readonly PlannedWrite[] {
  const bits = FLAG_NAMES.map((_, bit) => bit).filter(
    (bit) => isSettableFlag(bit) && bySetting.has(flagSettingName(bit)),
  );
  if (bits.length === 0) return [];
  const mask = bits.reduce((all, bit) => all | (1 << bit), 0);
  const on = bits.filter((bit) => bySetting.get(flagSettingName(bit))?.before !== undefined);
  const value = on.reduce((all, bit) => all | (1 << bit), 0);
  return [{ write: { kind: "link", flags: { value, mask } }, settings: bits.map(flagSettingName) }];
}

function attributeWrites(type: number, bySetting: BySetting): readonly PlannedWrite[] {
  const setting = linkSettingName(type);
  const difference = bySetting.get(setting);
  if (!difference) return [];
  // An alias that is not there is set by one of no bytes; nothing else that can be set is ever missing.
  const isAlias = type === LinkAttribute.IFALIAS;
  const value = difference.before === undefined && isAlias ? Buffer.alloc(0) : settingValue(difference.before ?? "");
  return value ? [{ write: { kind: "link", attributes: [{ type, value }] }, settings: [setting] }] : [];
}

/** Removed before others are added: one that another link has cannot be had, and says so. */
function altNameWrites(differences: readonly SettingDifference[]): readonly PlannedWrite[] {
  const prefix = altNameSetting("");
  const changed = differences.filter(({ setting }) => setting.startsWith(prefix));
  const writes = changed.map(({ setting, before }): PlannedWrite => {
    const action = before === undefined ? "remove" : "add";
    return { write: { kind: "altname", action, name: setting.slice(prefix.length) }, settings: [setting] };
  });
  const isRemoval = ({ write }: PlannedWrite) => write.kind === "altname" && write.action === "remove";
  return [...writes.filter(isRemoval), ...writes.filter((write) => !isRemoval(write))];
}

function ethtoolWrites(kind: EthtoolKind, bySetting: BySetting): readonly PlannedWrite[] {
  const { set, settable = [] } = kind;
  if (set === undefined) return [];
  const changed = settable.flatMap((type) => {
    const setting = ethtoolSettingName(kind, type);
    const attribute = changedAttribute(kind, type, bySetting.get(setting));
    return attribute ? [{ setting, attribute }] : [];
  });
  if (changed.length === 0) return [];
  const attributes = changed.map(({ attribute }) => attribute);
  return [{ write: { kind: "ethtool", command: set, attributes }, settings: changed.map(({ setting }) => setting) }];
}

function changedAttribute(
  { bitsets = [] }: EthtoolKind,
  type: number,
  difference: SettingDifference | undefined,
): WrittenAttribute | undefined {
  const [before, after] = [difference?.before, difference?.after].map((text) => settingValue(text ?? ""));
  if (!before || !after) return undefined; // it cannot be set where it was not, or is not any more
  if (!bitsets.includes(type)) return { type, value: before };
  return { type, value: bitsetChange(after, before), isNested: true };
}
