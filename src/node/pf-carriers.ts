// Whether there is a signal on the wire of each PF, and what follows for its VFs by the PF's entry in the list.
import type { PciAddress, PhysicalFunction } from "../pci/index.ts";

/** `none yet`: not since we observe it. */
type Carrier = "none yet" | "there" | "lost";

export class PfCarriers {
  readonly #links = new Map<PciAddress, { readonly up: boolean; readonly carrier: Carrier }>();

  /** Notes what the kernel says of the PF's link. Answers with what that changed; undefined where nothing. */
  set(pf: PciAddress, { up, carrier }: { readonly up: boolean; readonly carrier: boolean }): Carrier | undefined {
    const before = this.#links.get(pf);
    const had = before?.carrier ?? "none yet";
    const now = up && carrier ? "there" : had === "there" ? "lost" : had;
    if (before && now === had && up === before.up) return undefined;
    this.#links.set(pf, { up, carrier: now });
    return now;
  }

  forget(pf: PciAddress): void {
    this.#links.delete(pf);
  }

  /** As far as the kernel has said. */
  of(pf: PciAddress): "up" | "down" | "unknown" {
    const carrier = this.#links.get(pf)?.carrier;
    if (carrier === undefined) return "unknown";
    return carrier === "there" ? "up" : "down";
  }

  /** What is wrong with the link, and what to do; undefined where nothing is, or the entry does not mind. */
  problemOf({ address, ifname, entry: { carrier: rule } }: PhysicalFunction): string | undefined {
    const link = this.#links.get(address);
    if (rule === "ignore" || !link || link.carrier === "there") return undefined;
    if (rule === "watch" && link.carrier === "none yet") return undefined;
    return link.up
      ? `PF ${address} has no carrier: look at its cable and at the switch, or set "carrier: ignore"`
      : `PF ${address} is set down, and its VFs with it: ip link set ${ifname} up`;
  }
}
