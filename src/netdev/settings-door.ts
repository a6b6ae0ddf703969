// What the host had set of a link, read and written as a whole.
import type { LinkPlace, Netns } from "../kernel/index.ts";
import { type LinkSettings, type NamedLink, readLinkSettings } from "./link-settings.ts";
import { type RestoredSettings, restoreLinkSettings } from "./restore-link-settings.ts";

/** Plain data, for a journal. */
export interface KeptSettings {
  /** The boot in which they were read: numbers of programs and of feature bits are another kernel's otherwise. */
  readonly boot: string;
  readonly settings: LinkSettings;
}

/** What reads and restores the settings of a link. */
export interface SettingsDoor {
  /** Which boot of the machine this is. */
  readonly boot: string;
  read(place: LinkPlace, link: NamedLink): Promise<LinkSettings>;
  restore(place: LinkPlace, link: NamedLink, before: LinkSettings): Promise<RestoredSettings>;
}

/** Those of this kernel's links. */
export function linkSettingsOf(host: Netns): SettingsDoor {
  return {
    boot: host.readSysctl("kernel/random/boot_id").trim(),
    read: readLinkSettings,
    restore: restoreLinkSettings,
  };
}

/** The settings of a link of the host, before it goes out. Undefined where nothing reads them. */
export async function keptSettings(
  door: SettingsDoor | undefined,
  place: LinkPlace,
  link: NamedLink,
): Promise<KeptSettings | undefined> {
  return door && { boot: door.boot, settings: await door.read(place, link) };
}
