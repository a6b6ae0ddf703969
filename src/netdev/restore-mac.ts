// The administrative address of a VF: with one its PF says what the address is, and the VF chooses no other.
import type { Patience } from "./transient.ts";
import { isPinned, NO_MAC, type PfPort, restoreVfSettings, unpinMac } from "./vf-settings-through-pf.ts";

interface VfAtPort {
  readonly port: PfPort;
  readonly index: number;
}

/** The administrative address of a VF that is being restored. */
export class MacRestore {
  readonly #vf: VfAtPort;
  readonly #before: string;
  readonly #own: string | undefined;
  readonly #patience: Patience;
  #isUnpinned = false;

  /** `before` is what the PF is to have again, `own` what the link is to have again. */
  constructor(vf: VfAtPort, to: { readonly before: string; readonly own: string | undefined }, patience: Patience) {
    this.#vf = vf;
    this.#before = to.before;
    this.#own = to.own;
    this.#patience = patience;
  }

  /**
   * Whether the PF names an address that it is not to have set, and only the link could say whose it is: of a VF that came
   * to the host without us, or of one that an earlier attempt has left.
   */
  async isInDoubt(): Promise<boolean> {
    return this.#before === NO_MAC && isPinned(await this.#actual());
  }

  /**
   * Makes way for the link's own address, which the link gets next. Whether the PF has no word on it now.
   * @throws {NetdevError | KernelError}
   */
  async makeWay(): Promise<boolean> {
    // Once: a PF that names what its VF has chosen (ice) seems to have pinned that, and each change through it resets the VF.
    if (this.#isUnpinned || !isPinned(await this.#actual())) return true;
    const { port, index } = this.#vf;
    this.#isUnpinned = await unpinMac(port, index, this.#patience);
    // The PF's word alone may do.
    if (!this.#isUnpinned) await this.#restore();
    return this.#isUnpinned;
  }

  /** Puts the PF's word back, when the link has what it gets. @throws {NetdevError | KernelError} */
  async finish(): Promise<void> {
    const actual = await this.#actual();
    // Of a VF that is free many PFs name what it has chosen.
    if (this.#before === NO_MAC && actual === this.#own) return;
    await this.#restore();
    this.#isUnpinned = false;
  }

  async #restore(): Promise<void> {
    const { port, index } = this.#vf;
    const how = { patience: this.#patience, restatesMac: this.#isUnpinned && isPinned(this.#before) };
    const [fault] = await restoreVfSettings(port, index, { before: { mac: this.#before }, ownMac: this.#own, ...how });
    if (fault) throw fault.error;
  }

  async #actual(): Promise<string | undefined> {
    const { port, index } = this.#vf;
    return (await this.#patience.run(`read the settings of VF ${index}`, () => port.read(index))).mac;
  }
}
