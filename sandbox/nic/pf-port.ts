import { Errno, KernelError } from "../../src/kernel/index.ts";
import type { NicPf } from "./nic.ts";

/** Settings of one virtual function, made through its physical one. */
export interface PortSettings {
  readonly mac?: string;
  readonly vlan?: number;
  readonly spoofCheck?: boolean;
  readonly trust?: boolean;
  readonly linkState?: "auto" | "enable" | "disable";
  readonly minTxRateMbps?: number;
  readonly maxTxRateMbps?: number;
}

const NO_MAC = "00:00:00:00:00:00";
const VLAN_MAX = 4095;
const fresh: Required<PortSettings> = {
  mac: NO_MAC,
  vlan: 0,
  spoofCheck: true,
  trust: false,
  linkState: "auto",
  minTxRateMbps: 0,
  maxTxRateMbps: 0,
};

/** What the card's driver does beyond igb's. */
export interface PortBehaviour {
  /** The PF reports nothing of its VFs, and takes no setting. */
  readonly isSilent?: boolean;
  /** The VF is in a reset: no setting is taken. */
  readonly isResetting?: (vfIndex: number) => boolean;
  /** A VF in a reset is left out of the PF's list. */
  readonly hidesResetting?: boolean;
  /** A word that changes nothing sets nothing: ice_set_vf_mac, "nothing left to do". */
  readonly ignoresSameMac?: boolean;
  /** Called with each change, before the write that made it returns. */
  readonly onChange?: (vfIndex: number) => Promise<void>;
}

/** What a physical function keeps about its virtual ones, answering as the igb driver does unless it behaves otherwise. */
export class PretendPfPort {
  /** As the forwarder names it. */
  readonly pf: string;
  readonly #pf: NicPf;
  readonly #settings = new Map<number, Required<PortSettings>>();
  /** What a virtual one has chosen itself. */
  readonly #chosen = new Map<number, string>();
  readonly #onVlan: (vfIndex: number, vlan: number) => Promise<void>;
  readonly #behaviour: PortBehaviour;
  /** Every write that was accepted, for tests that count them. */
  readonly writes: { readonly vfIndex: number; readonly change: PortSettings }[] = [];

  constructor(pf: NicPf, onVlan: (vfIndex: number, vlan: number) => Promise<void>, behaviour: PortBehaviour = {}) {
    this.#behaviour = behaviour;
    this.#pf = pf;
    this.pf = `${pf.address} (driver ${pf.nativeDriver})`;
    this.#onVlan = onVlan;
  }

  /** What it reports to the forwarder. @throws {KernelError} EINVAL without such a virtual function; EAGAIN while it is left out. */
  async read(vfIndex: number): Promise<PortSettings> {
    const { isSilent, isResetting, hidesResetting } = this.#behaviour;
    const settings = this.settingsOf(vfIndex);
    if (hidesResetting && isResetting?.(vfIndex)) throw refuse(`read VF ${vfIndex} of ${this.#pf.address}`, "EAGAIN");
    return isSilent ? {} : settings;
  }

  /**
   * What it keeps, whatever it reports. Of a virtual one whose address it has not set that is what it has chosen:
   * igb_ndo_get_vf_config and igb_set_vf_mac_addr, drivers/net/ethernet/intel/igb/igb_main.c; ice and i40e keep it too.
   * @throws {KernelError} EINVAL when there is no such virtual function.
   */
  settingsOf(vfIndex: number): Required<PortSettings> {
    if (!this.#pf.vfs[vfIndex]) throw refuse(`read VF ${vfIndex} of ${this.#pf.address}`, "EINVAL");
    const settings = this.#settings.get(vfIndex) ?? fresh;
    return { ...settings, mac: this.adminMac(vfIndex) ?? this.#chosen.get(vfIndex) ?? NO_MAC };
  }

  /**
   * A virtual one chooses its address. False when the physical one has set it, and does not trust it: IGB_VF_FLAG_PF_SET_MAC in
   * igb_set_vf_mac_addr.
   */
  choose(vfIndex: number, mac: string): boolean {
    if (this.adminMac(vfIndex) !== undefined && this.#settings.get(vfIndex)?.trust !== true) return false;
    this.#chosen.set(vfIndex, mac);
    return true;
  }

  /**
   * A MAC lands on the network device at the next bind, as with igbvf; a VLAN at once.
   * @throws {KernelError} EINVAL, or EOPNOTSUPP for the link state, which igb does not have.
   */
  async write(vfIndex: number, change: PortSettings): Promise<void> {
    const op = `set ${Object.keys(change).join(", ")} of VF ${vfIndex} of ${this.#pf.address}`;
    const before = this.settingsOf(vfIndex);
    if (this.#behaviour.isSilent) throw refuse(op, "EOPNOTSUPP");
    if (this.#behaviour.isResetting?.(vfIndex)) throw refuse(op, "EAGAIN");
    if (change.linkState !== undefined && change.linkState !== "auto") throw refuse(op, "EOPNOTSUPP");
    if (!isValid(change)) throw refuse(op, "EINVAL");
    if (this.#behaviour.ignoresSameMac && change.mac === before.mac) return;
    const given = Object.fromEntries(Object.entries(change).filter(([, value]) => value !== undefined));
    const actual = { ...before, mac: this.adminMac(vfIndex) ?? NO_MAC };
    const after = { ...actual, ...given };
    // igb_ndo_set_vf_mac: zero takes the address away from it too, until it chooses again.
    if (change.mac === NO_MAC) this.#chosen.delete(vfIndex);
    this.#settings.set(vfIndex, after);
    this.writes.push({ vfIndex, change });
    if (after.vlan !== before.vlan) await this.#onVlan(vfIndex, after.vlan);
    const keys = Object.keys(after) as (keyof PortSettings)[];
    if (keys.some((key) => after[key] !== before[key])) await this.#behaviour.onChange?.(vfIndex);
  }

  /** The MAC that the physical function gave, if it gave one. */
  adminMac(vfIndex: number): string | undefined {
    const mac = this.#settings.get(vfIndex)?.mac;
    return mac === undefined || mac === NO_MAC ? undefined : mac;
  }

  vlan(vfIndex: number): number {
    return this.#settings.get(vfIndex)?.vlan ?? 0;
  }
}

function isValid({ mac, vlan, minTxRateMbps }: PortSettings): boolean {
  const isUnicast = mac === undefined || (/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(mac) && !(parseInt(mac, 16) & 1));
  const isTag = vlan === undefined || (Number.isInteger(vlan) && vlan >= 0 && vlan <= VLAN_MAX);
  return isUnicast && isTag && !minTxRateMbps;
}

function refuse(op: string, code: keyof typeof Errno): KernelError {
  return new KernelError(op, Errno[code]);
}
