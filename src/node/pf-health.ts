// What is wrong with PFs, as health conditions.
import { type PciAddress, type PfFault, switchdevProblem } from "../pci/index.ts";
import type { Condition, Health } from "../telemetry/index.ts";

export class PfHealth {
  /** Of a PF that is to have VFs and has none. */
  readonly withoutVfs: Condition;
  readonly #unusable: Condition;
  readonly #otherNamespace: Condition;
  readonly #noCarrier: Condition;
  readonly #noDriver: Condition;
  readonly #switchdev: Condition;

  constructor(health: Health) {
    this.withoutVfs = health.condition("pf-without-vfs");
    this.#unusable = health.condition("pf-unusable");
    this.#noCarrier = health.condition("pf-without-carrier");
    this.#otherNamespace = health.condition("other-network-namespace");
    this.#noDriver = health.condition("vf-driver-missing");
    this.#switchdev = health.condition("pf-in-switchdev-mode");
  }

  /** It is usable, with this problem of its link, if any. */
  judge(pf: PciAddress, isSwitchdev: boolean, linkProblem: string | undefined): void {
    set(this.#switchdev, pf, isSwitchdev ? switchdevProblem(pf) : undefined);
    set(this.#noCarrier, pf, linkProblem);
  }

  /** Whether the driver of its VFs is loaded; with what to do where it is not. */
  setDriver(pf: PciAddress, note: string | undefined): void {
    set(this.#noDriver, pf, note && `KERNEL clients cannot get its VFs: ${note.replace(`${pf}: `, "")}`);
  }

  /** It cannot be used: nothing else is known of it then. */
  fail({ address, kind, message }: PfFault): void {
    const isElsewhere = kind === "other-namespace";
    set(this.#otherNamespace, address, isElsewhere ? message : undefined);
    set(this.#unusable, address, isElsewhere ? undefined : message);
    this.#forget(address);
  }

  /** Nothing keeps it from being used any more. */
  mend(pf: PciAddress): void {
    this.#unusable.clear(pf);
    this.#otherNamespace.clear(pf);
  }

  /** It is not observed any more. */
  clear(pf: PciAddress): void {
    this.#forget(pf);
    this.mend(pf);
  }

  #forget(pf: PciAddress): void {
    for (const one of [this.#noCarrier, this.#noDriver, this.#switchdev]) one.clear(pf);
  }
}

function set(condition: Condition, pf: PciAddress, problem: string | undefined): void {
  if (problem === undefined) condition.clear(pf);
  else condition.raise(problem, pf);
}
