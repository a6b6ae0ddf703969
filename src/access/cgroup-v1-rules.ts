import { messageOf } from "../async/index.ts";
import { type CgroupFolder, type DeviceNumber, KernelError } from "../kernel/index.ts";
import { exactAccess, isAllowed, type ListEntry, missingAccess, parseDevicesList } from "./devices-list.ts";
import { AccessError } from "./error.ts";
import type { WrittenRule } from "./grant.ts";
import {
  type Cgroup,
  deviceText,
  isGone,
  type Known,
  type Ours,
  pathsAbove,
  type Rules,
  unlessGone,
  withoutDevices,
} from "./rules.ts";

/** Others may remove what we write while we read it back. */
const TRIES = 5;

/**
 * Rules of the version 1 devices controller. The kernel merges ours with those of the runtime, so what we wrote must be
 * remembered; what a wider rule allows is left alone. A rule of a cgroup is no rule of the cgroups that are beneath it
 * already, and needs one in those above it.
 */
export class CgroupV1Rules implements Rules {
  readonly #root: CgroupFolder;

  constructor(root: CgroupFolder) {
    this.#root = root;
  }

  async allow(
    cgroup: Cgroup,
    devices: readonly DeviceNumber[],
    intend: (rules: readonly WrittenRule[]) => Promise<void>,
  ): Promise<Ours | undefined> {
    const wrote: WrittenRule[] = [];
    try {
      for (let attempt = 0; attempt < TRIES; attempt++) {
        const rules = missingRules(cgroup, devices, readList(cgroup));
        if (rules.length === 0) return wrote.length > 0 ? { devices, wrote } : undefined;
        await intend(rules);
        wrote.push(...rules);
        for (const rule of rules) await this.#write(cgroup, rule);
      }
      throw new AccessError({ kind: "unsettled", cgroup: cgroup.path, tries: TRIES });
    } catch (error) {
      // What cannot be denied either stays among the rules that `intend` was given.
      await denyAll(cgroup, wrote).catch(() => {});
      throw error;
    }
  }

  async isInForce(cgroup: Cgroup, devices: readonly DeviceNumber[]): Promise<boolean> {
    const entries = readList(cgroup);
    return entries === undefined || devices.every((device) => isAllowed(entries, device));
  }

  async withdraw(cgroup: Cgroup, { wrote }: Ours): Promise<readonly string[]> {
    const before = readList(cgroup) ?? [];
    const there = wrote.filter((rule) => isLeft(before, rule));
    try {
      await denyAll(cgroup, there);
    } catch (error) {
      if (!isGone(error)) return [`${cgroup.path} keeps its rules: ${messageOf(error)}`];
    }
    const after = readList(cgroup) ?? [];
    return wrote.filter((rule) => isLeft(after, rule)).map((rule) => `${cgroup.path} still has ${ruleText(rule)}`);
  }

  async strays(cgroup: Cgroup, { explained, managed }: Known): Promise<readonly DeviceNumber[]> {
    const entries = readList(cgroup) ?? [];
    return withoutDevices(managed, explained).filter((device) => /[rw]/.test(exactAccess(entries, device)));
  }

  rulesFor(cgroup: Cgroup, devices: readonly DeviceNumber[]): readonly WrittenRule[] {
    const entries = readList(cgroup) ?? [];
    const rules = devices.map(({ major, minor }) => {
      return { major, minor, cgroup: cgroup.path, access: exactAccess(entries, { major, minor }) };
    });
    return rules.filter(({ access }) => access !== "");
  }

  async fingerprint(cgroup: Cgroup): Promise<string> {
    return unlessGone("", () => cgroup.folder.readText("devices.list"));
  }

  async #write(cgroup: Cgroup, rule: WrittenRule): Promise<void> {
    try {
      await cgroup.folder.writeText("devices.allow", ruleText(rule));
    } catch (error) {
      if (isGone(error)) return;
      // The kernel's word for a rule that the cgroup above does not have.
      const above =
        error instanceof KernelError && error.code === "EPERM" ? await this.#refuser(cgroup, rule) : undefined;
      const device = deviceText(rule);
      if (above !== undefined) {
        throw new AccessError({ kind: "refused-above", cgroup: above, device, by: "devices.list" }, { cause: error });
      }
      throw new AccessError(
        { kind: "not-taken", cgroup: cgroup.path, device, problem: messageOf(error) },
        { cause: error },
      );
    }
  }

  /** The cgroup above that does not allow the device. */
  async #refuser({ path }: Cgroup, device: DeviceNumber): Promise<string | undefined> {
    for (const above of pathsAbove(path)) {
      const folder = this.#root.beneath(above);
      try {
        if (!isAllowed(readList({ path: above, folder }) ?? [], device)) return above;
      } finally {
        folder.close();
      }
    }
    return undefined;
  }
}

/** What must be written for the devices to be openable; nothing in a cgroup that has gone. */
function missingRules(
  { path }: Cgroup,
  devices: readonly DeviceNumber[],
  entries: readonly ListEntry[] | undefined,
): readonly WrittenRule[] {
  return devices.flatMap((device) => {
    const access = entries === undefined ? "" : missingAccess(entries, device);
    return access === "" ? [] : [{ ...device, cgroup: path, access }];
  });
}

/** Undefined when the cgroup has gone. */
function readList({ folder }: Cgroup): readonly ListEntry[] | undefined {
  return unlessGone(undefined, () => parseDevicesList(folder.readText("devices.list")));
}

async function denyAll({ folder }: Cgroup, rules: readonly WrittenRule[]): Promise<void> {
  for (const rule of rules) await folder.writeText("devices.deny", ruleText(rule));
}

/** Whether a letter of the rule is still allowed for exactly its device. */
function isLeft(entries: readonly ListEntry[], rule: WrittenRule): boolean {
  const has = exactAccess(entries, rule);
  return [...rule.access].some((letter) => has.includes(letter));
}

function ruleText(rule: WrittenRule): string {
  return `c ${deviceText(rule)} ${rule.access}`;
}
