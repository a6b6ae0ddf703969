// What the tests of src/access share: one pod of one version of cgroups, and the module at work on it.
import type { TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type DeviceAccess, type DeviceGrant, type GrantState, openDeviceAccess } from "../../src/access/index.ts";
import { systemClock } from "../../src/async/index.ts";
import { type DeviceNumber, deviceProgramsOf } from "../../src/kernel/index.ts";
import { createMetrics } from "../../src/telemetry/index.ts";
import { type RecordingLog, recordingLog } from "../../src/telemetry/recording-log.ts";
import { needs } from "../needs.ts";
import { codeOf, install, onlyNull } from "./device-filters.ts";
import { CgroupPlace, type Opener } from "./pod-cgroups.ts";

export const POD_UID = "0f3b7c1e-9d5a-4c61-8a3e-2b1f6d7e8c90";
export const OTHER_UID = "77ab01cd-0000-4000-8000-00c0ffee0001";

/** Where kubelet puts a pod, by its cgroup driver. */
export function podPath(uid: string): string {
  return `kubepods/burstable/pod${uid}`;
}

/** Both versions, for tests that hold for either. */
export const versions = [1, 2] as const;

/** One hierarchy with pods, and the module. */
export class AccessScene {
  readonly place: CgroupPlace;
  readonly log: RecordingLog = recordingLog();
  readonly metrics = createMetrics();
  readonly access: DeviceAccess;
  /** All states that were recorded, in order. */
  readonly records: GrantState[] = [];

  constructor(t: TestContext, version: 1 | 2) {
    this.place = new CgroupPlace(t, version);
    this.access = this.openAccess(t);
  }

  /** The module again, as after a restart. */
  openAccess(t: TestContext): DeviceAccess {
    const { log, metrics } = this;
    const access = openDeviceAccess({ cgroupPath: this.place.path, clock: systemClock, log, metrics });
    t.after(() => access.close());
    return access;
  }

  /** Makes a cgroup from which nothing but /dev/null can be opened, as runtimes do. */
  close(path: string): void {
    if (this.place.version === 1) {
      this.place.makeClosed(path);
    } else {
      this.place.make(path);
      install(this.place.folder(path), onlyNull);
    }
  }

  /** A container, closed, with a process in it. */
  container(path: string): Opener {
    this.close(path);
    return this.place.start(path);
  }

  /** All that decides about devices in a cgroup: the list, or the filters' instructions. */
  rulesOf(path: string): readonly string[] {
    if (this.place.version === 1) return this.place.read(path, "devices.list").trim().split("\n").sort();
    return deviceProgramsOf(this.place.folder(path).fd).ids.map(codeOf);
  }

  grant(
    devices: readonly DeviceNumber[],
    requested: { readonly id?: string; readonly dir?: string; readonly uid?: string } = {},
  ): DeviceGrant {
    return this.access.open({
      connectionId: requested.id ?? "c1",
      pod: { uid: requested.uid ?? POD_UID },
      cgroupDir: requested.dir ?? "",
      devices,
      record: async (state) => void this.records.push(state),
    });
  }
}

/** Runs the story once for each version that this machine has. */
export function needsVersion(t: TestContext, version: 1 | 2): boolean {
  return version === 1 ? needs(t, "root", "cgroup1-devices", "mknod") : needs(t, "root", "cgroup2", "bpf", "mknod");
}

/** Asks again until the answer is as desired; the last answer when it never is. */
export async function eventually<T>(observe: () => Promise<T>, isWanted: (answer: T) => boolean): Promise<T> {
  for (let tries = 0; ; tries++) {
    const answer = await observe();
    if (isWanted(answer) || tries === 12_000) return answer;
    await sleep(10);
  }
}
