// How the pretend card and its drivers behave beyond what all of them do. Each behaviour names the kernel's source that has it;
// line numbers are those of Linux 6.12.
import type { Clock } from "../../src/async/index.ts";
import { seededFractions } from "../../src/async/testing/seeded-random.ts";

/** Where a PF forwards by MAC and VLAN, or by what a switch on the node says. */
export type EswitchMode = "legacy" | "switchdev";

export type CardKind =
  /** Nothing is busy, nothing goes away: what igb and igbvf of the lab do. */
  | "igb"
  /**
   * iavf on ice or i40e. Each setting of the PF that changes something resets the VF (ice_set_vf_port_vlan → ice_reset_vf,
   * ice_sriov.c; i40e_ndo_set_vf_mac → i40e_vc_reset_vf, i40e_virtchnl_pf.c), and until that is over
   * - "up" answers EBUSY: iavf_open wants state DOWN, intel/iavf/iavf_main.c:4307;
   * - an address answers EAGAIN: iavf_set_mac, no word of the PF within 2.5 s; EACCES when the PF has set another one;
   * - an MTU of a link that is up answers EBUSY: iavf_change_mtu, iavf_wait_for_reset;
   * - the next setting answers EAGAIN: i40e_ndo_set_vf_*, "VF %d still in reset. Try again";
   * - the first PF leaves the VF out of its list: ice_get_vf_cfg asks ice_check_vf_ready_for_cfg, and rtnl_fill_vfinfo
   *   (net/core/rtnetlink.c) leaves out what get_vf_config cannot answer;
   * - now and then the network device goes, and another one comes at the end: hns3 and a rebound driver do so
   *   (hclgevf_reset → hnae3 uninit/init of the client, hns3_enet.c; iavf_remove and iavf_probe).
   * At the end the device has the address that the PF has set (iavf_process_config).
   */
  | "iavf"
  /** The PF's driver reports nothing of its VFs and takes no setting: no ndo_get_vf_config, rtnl_fill_vf (net/core/rtnetlink.c). */
  | "no-vf-info"
  /**
   * The PF is a switch: each VF has a representor beside the PF's own device (mlx5e_rep_get_phys_port_name; devlink_port
   * flavour PCI VF), and `devlink dev eswitch show` says switchdev (devlink_nl_eswitch_get_doit, net/devlink/dev.c).
   */
  | "switchdev";

/** Of a card whose behaviour is random. */
export interface ResetTimes {
  readonly seed: number;
  readonly shortestMs: number;
  readonly longestMs: number;
  /** So many of a hundred resets take the network device away. */
  readonly percentGone: number;
}

/** Long enough that each step meets a reset of the one before, short enough for a thousand of them. */
export const QUICK_RESETS: Omit<ResetTimes, "seed"> = { shortestMs: 5, longestMs: 60, percentGone: 20 };

interface Reset {
  /** Resolves when it is over. */
  readonly over: Promise<void>;
}

/** The resets of all VFs of the machine: how long each lasts, and whether it takes the network device away, are seeded. */
export class VfResets<Fn extends { readonly address: string }> {
  readonly #times: ResetTimes;
  readonly #clock: Clock;
  readonly #running = new Map<string, Reset>();
  readonly #randoms = new Map<string, () => number>();
  readonly #stop = new AbortController();
  readonly #remove: (fn: Fn) => Promise<() => Promise<void>>;
  readonly #finish: (fn: Fn) => Promise<void>;
  /** How many there were, and how many took the device away. */
  readonly counts = { all: 0, gone: 0 };

  /** `remove` takes the network device away and answers with how another one comes; `finish` is done at the end of each. */
  constructor(
    times: ResetTimes,
    parts: {
      readonly clock: Clock;
      readonly remove: (fn: Fn) => Promise<() => Promise<void>>;
      readonly finish: (fn: Fn) => Promise<void>;
    },
  ) {
    this.#times = times;
    this.#clock = parts.clock;
    this.#remove = parts.remove;
    this.#finish = parts.finish;
  }

  isResetting({ address }: Pick<Fn, "address">): boolean {
    return this.#running.has(address);
  }

  /** Begins one; returns when the device has gone, if it goes. */
  async begin(fn: Fn): Promise<void> {
    if (this.#stop.signal.aborted) return;
    const { shortestMs, longestMs, percentGone } = this.#times;
    const random = this.#randomOf(fn.address);
    const lastsMs = shortestMs + random() * (longestMs - shortestMs);
    const goes = random() * 100 < percentGone;
    this.counts.all += 1;
    if (goes) this.counts.gone += 1;
    const over = Promise.withResolvers<void>();
    this.#running.set(fn.address, { over: over.promise });
    const comeBack = goes ? await this.#remove(fn) : undefined;
    void this.#end(fn, { lastsMs, comeBack }).then(over.resolve);
  }

  /** Resolves when no reset is under way. */
  async settled(): Promise<void> {
    while (this.#running.size > 0) await Promise.all([...this.#running.values()].map(({ over }) => over));
  }

  /** Ends those that run at once, as they are. */
  async stop(): Promise<void> {
    this.#stop.abort(new Error("the machine stops"));
    await this.settled();
  }

  async #end(
    fn: Fn,
    how: { readonly lastsMs: number; readonly comeBack: (() => Promise<void>) | undefined },
  ): Promise<void> {
    await this.#clock.sleep(how.lastsMs, this.#stop.signal).catch(() => {}); // stopped
    try {
      if (this.#stop.signal.aborted) return;
      await how.comeBack?.();
      await this.#finish(fn);
    } finally {
      this.#running.delete(fn.address);
    }
  }

  /** Each VF has numbers of its own: what others do at the same time changes nothing. */
  #randomOf(address: string): () => number {
    let random = this.#randoms.get(address);
    if (!random) {
      const salt = [...address].reduce((sum, letter) => Math.imul(sum, 31) + (letter.codePointAt(0) ?? 0), 7);
      random = seededFractions(this.#times.seed ^ salt);
      this.#randoms.set(address, random);
    }
    return random;
  }
}
