import { messageOf } from "../async/index.ts";
import { AttachFlag, type CgroupFolder, type DeviceNumber, deviceProgramsOf } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import { AccessError } from "./error.ts";
import { type Filter, filterText, letsOpen, mayHold, readFilter } from "./filter.ts";
import type { WrittenRule } from "./grant.ts";
import { readFilters, rewriteDevicePrograms } from "./rewrite-device-programs.ts";
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

/** Others may change the filters while we do. */
const TRIES = 5;

/**
 * Filters of version 2: BPF programs, all of which must agree, those of the cgroups above included. Ours is a block in front
 * of each of the cgroup's own; it carries a mark, so nothing has to be remembered.
 */
export class CgroupV2Rules implements Rules {
  readonly #root: CgroupFolder;
  readonly #log: Log;

  constructor(root: CgroupFolder, log: Log) {
    this.#root = root;
    this.#log = log;
  }

  async allow(
    cgroup: Cgroup,
    devices: readonly DeviceNumber[],
    intend: (rules: readonly WrittenRule[]) => Promise<void>,
  ): Promise<Ours | undefined> {
    const missing = unlessGone<readonly DeviceNumber[]>([], () => {
      const { list } = readFilters(cgroup);
      return devices.filter((device) => !list.every((filter) => passes(filter, device)));
    });
    if (missing.length > 0) await intend([]);
    return unlessGone<Ours | undefined>(undefined, () => {
      if (this.#change(cgroup, devices) === 0) return undefined;
      this.#logSingleFilter(cgroup);
      return { devices: missing, wrote: [] };
    });
  }

  async isInForce(cgroup: Cgroup, devices: readonly DeviceNumber[]): Promise<boolean> {
    return unlessGone(true, () =>
      readFilters(cgroup).list.every((filter) => devices.every((device) => passes(filter, device))),
    );
  }

  async withdraw(cgroup: Cgroup, { devices }: Ours): Promise<readonly string[]> {
    let failure: string | undefined;
    try {
      rewriteDevicePrograms(cgroup, ({ block }) => withoutDevices(block?.devices ?? [], devices));
    } catch (error) {
      if (isGone(error)) return [];
      failure = messageOf(error);
    }
    const left = unlessGone<readonly Filter[]>([], () =>
      readFilters(cgroup).list.filter((filter) => mayHold(filter, devices)),
    );
    return left.map((filter) => {
      const why = failure ?? filter.problem ?? "another program has put it back";
      return `${filterText(filter)} of ${cgroup.path} still has our part, or cannot be read: ${why}`;
    });
  }

  async strays(cgroup: Cgroup, { explained }: Known): Promise<readonly DeviceNumber[]> {
    return unlessGone<readonly DeviceNumber[]>([], () =>
      readFilters(cgroup).list.flatMap(({ block }) => withoutDevices(block?.devices ?? [], explained)),
    );
  }

  rulesFor(): readonly WrittenRule[] {
    return [];
  }

  async fingerprint({ folder }: Cgroup): Promise<string> {
    return unlessGone("", () => deviceProgramsOf(folder.fd, { inForce: true }).ids.join());
  }

  /** Until all filters in force agree. Answers how many of the cgroup's own were changed. */
  #change(cgroup: Cgroup, devices: readonly DeviceNumber[]): number {
    let changed = 0;
    for (let attempt = 0; attempt < TRIES; attempt++) {
      changed += rewriteDevicePrograms(cgroup, (filter) => {
        const has = filter.block?.devices ?? [];
        return [...has, ...withoutDevices(devices, has).filter((device) => !passes(filter, device))];
      });
      const refusal = this.#refusal(cgroup, devices);
      if (!refusal) return changed;
      const { filter, device } = refusal;
      // One of its own, though all of those let it pass a moment ago: another program has put one in its place.
      if (deviceProgramsOf(cgroup.folder.fd).ids.includes(filter.id)) continue;
      // A filter of a cgroup above is not ours to change: other pods share it.
      const owner = this.#ownerOf(filter, cgroup);
      throw new AccessError({
        kind: "refused-above",
        cgroup: owner,
        device: deviceText(device),
        by: filterText(filter),
      });
    }
    throw new AccessError({ kind: "unsettled", cgroup: cgroup.path, tries: TRIES });
  }

  /** The first of all filters in force that does not let a device pass. */
  #refusal(
    cgroup: Cgroup,
    devices: readonly DeviceNumber[],
  ): { readonly filter: Filter; readonly device: DeviceNumber } | undefined {
    const { ids } = deviceProgramsOf(cgroup.folder.fd, { inForce: true });
    for (const filter of ids.flatMap((id) => readFilter(id) ?? [])) {
      if (filter.problem !== undefined) {
        const { problem } = filter;
        this.#log.warn("access-not-proven", { cgroup: cgroup.path, filter: filterText(filter), problem });
        continue;
      }
      const device = devices.find((one) => !letsOpen(filter.program, one));
      if (device) return { filter, device };
    }
    return undefined;
  }

  #ownerOf({ id }: Filter, { path }: Cgroup): string {
    for (const above of pathsAbove(path).toReversed()) {
      const folder = this.#root.beneath(above);
      try {
        if (deviceProgramsOf(folder.fd).ids.includes(id)) return above;
      } finally {
        folder.close();
      }
    }
    return "/";
  }

  #logSingleFilter({ path, folder }: Cgroup): void {
    const { flags } = deviceProgramsOf(folder.fd);
    if (flags === AttachFlag.MULTI) return;
    this.#log.info("access-single-filter", { cgroup: path, attached: flags === 0 ? "alone" : "to be overridden" });
  }
}

function passes(filter: Filter, device: DeviceNumber): boolean {
  return filter.problem === undefined && letsOpen(filter.program, device);
}
