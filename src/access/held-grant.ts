import type { DeviceNumber } from "../kernel/index.ts";
import { AccessError } from "./error.ts";
import type { GrantRequest, GrantState, RecordState, WrittenRule } from "./grant.ts";
import { checkedUid, parseHint } from "./pod-name.ts";
import { type Cgroup, deviceText, isSameDevice } from "./rules.ts";

/** What is known of one grant. */
export class HeldGrant {
  readonly #record: RecordState;
  /** The pod's cgroup as the client sees it; undefined when it sent none. */
  readonly seenPodPath: string | undefined;
  #state: GrantState;
  #isRecorded = false;
  /** Whether it is to be kept, from its first `apply` to its `revoke`. */
  isKept = false;

  private constructor(state: GrantState, record: RecordState, seenPodPath?: string) {
    this.#state = state;
    this.#record = record;
    this.seenPodPath = seenPodPath;
  }

  /** One of a previous instance. */
  static ofState(state: GrantState, record: RecordState): HeldGrant {
    const grant = new HeldGrant(state, record);
    grant.#isRecorded = true;
    grant.isKept = true;
    return grant;
  }

  /** @throws {AccessError} bad-name, foreign-cgroup, no-pod. */
  static ofRequest({ connectionId, pod, cgroupDir, devices, record }: GrantRequest): HeldGrant {
    const uid = pod && checkedUid(pod);
    if (cgroupDir === "") {
      if (uid === undefined) throw new AccessError({ kind: "no-pod" });
      return new HeldGrant({ connectionId, podUid: uid, containers: "*", devices, wrote: [] }, record);
    }
    const hint = parseHint(cgroupDir);
    if (uid !== undefined && hint.podUid !== uid) {
      throw new AccessError({ kind: "foreign-cgroup", text: cgroupDir, pod: uid });
    }
    const state = { connectionId, podUid: uid ?? hint.podUid, containers: hint.containers, devices, wrote: [] };
    return new HeldGrant(state, record, hint.podPath);
  }

  get state(): GrantState {
    return this.#state;
  }

  get devices(): readonly DeviceNumber[] {
    return this.#state.devices;
  }

  wants(device: DeviceNumber): boolean {
    return this.#state.devices.some((one) => isSameDevice(one, device));
  }

  /** What was written for it into this cgroup and those above. */
  wroteInto({ path }: Cgroup): readonly WrittenRule[] {
    return this.#state.wrote.filter(({ cgroup }) => path === cgroup || path.startsWith(`${cgroup}/`));
  }

  /** Makes sure that the state is recorded, with the rules that are about to be written; they count as written from now on. */
  async intend(rules: readonly WrittenRule[]): Promise<void> {
    const added = rules.filter((rule) => !this.#state.wrote.some((known) => ruleKey(known) === ruleKey(rule)));
    if (added.length === 0 && this.#isRecorded) return;
    await this.#become({ ...this.#state, wrote: [...this.#state.wrote, ...added] });
  }

  /** Gives what was written for it to others who want the same, so that taking it back does not take from them. */
  async handOver(heirOf: (rule: WrittenRule) => HeldGrant | undefined): Promise<void> {
    const left: WrittenRule[] = [];
    for (const rule of this.#state.wrote) {
      const heir = heirOf(rule);
      if (heir) await heir.intend([rule]);
      else left.push(rule);
    }
    if (left.length < this.#state.wrote.length) await this.#become({ ...this.#state, wrote: left });
  }

  async #become(state: GrantState): Promise<void> {
    this.#state = state;
    await this.#record(state);
    this.#isRecorded = true;
  }
}

function ruleKey(rule: WrittenRule): string {
  return `${rule.cgroup} ${deviceText(rule)} ${rule.access}`;
}
