import type { Clock } from "../async/index.ts";
import type { LinkPlace } from "../kernel/index.ts";
import { KernelError } from "../kernel/index.ts";
import { NetdevError } from "./error.ts";
import { isTransient, type Patience } from "./transient.ts";

/** Some drivers (iavf) take an address only after they have talked to the PF. */
const TAKES_MS = 2_000;
const READ_EVERY_MS = 20;

interface LinkMac {
  readonly session: LinkPlace;
  /** In the session's namespace; the link is down, or its driver takes a new address while it is up. */
  readonly ifindex: number;
  readonly mac: string;
  readonly patience: Patience;
  readonly clock: Clock;
}

/**
 * Gives a link its own address and waits until it has it. The PF's word alone does not do: igbvf reads the
 * administrative address only when it is bound, and drops every frame until then. Whether the PF trusts the VF stays as it
 * is: with trust a client could take any address.
 * @throws {NetdevError} of kind "mac-not-taken" when it has another address still: binding the VF again may help.
 */
export async function setLinkMac(request: LinkMac): Promise<void> {
  if ((await macNow(request)) === request.mac) return;
  let refusal: unknown;
  try {
    await request.patience.run(`set address ${request.mac}`, () => setAddress(request));
  } catch (error) {
    if (!(error instanceof KernelError) || error.code === "ENODEV") throw error;
    refusal = error;
  }
  // A PF that resets its VF sets the address too, so the refusal is not the last word.
  const until = request.clock.monotonicMs() + TAKES_MS;
  while ((await macNow(request)) !== request.mac) {
    if (request.clock.monotonicMs() >= until) {
      const problem = refusal instanceof Error ? refusal.message : `it did not change within ${TAKES_MS} ms`;
      throw new NetdevError(
        { kind: "mac-not-taken", ifindex: request.ifindex, mac: request.mac, problem },
        { cause: refusal },
      );
    }
    await request.clock.sleep(READ_EVERY_MS);
  }
}

async function setAddress(request: LinkMac): Promise<void> {
  const { session, ifindex, mac } = request;
  try {
    await session.rtnl.setLink(ifindex, { address: mac });
  } catch (error) {
    if (!isTransient(error)) throw error;
    // The PF's reset of the VF may have set it meanwhile.
    if ((await macNow(request)) === mac) return;
    // Its driver may change no address while it is up (eth_prepare_mac_addr_change, net/ethernet/eth.c); the plan that
    // follows brings it up again.
    if (error.code === "EBUSY") await session.rtnl.setLink(ifindex, { up: false });
    throw error;
  }
}

async function macNow({ session, ifindex }: LinkMac): Promise<string | undefined> {
  return (await session.rtnl.linkByIndex(ifindex))?.address;
}

/** An address that is hardly in use: as given, but for who administers it (IEEE 802, bit 1 of the first byte). */
export function spareMac(mac: string): string {
  const first = Number.parseInt(mac.slice(0, 2), 16) ^ 2;
  return `${first.toString(16).padStart(2, "0")}${mac.slice(2)}`;
}
