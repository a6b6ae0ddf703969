import type { Clock } from "../async/index.ts";
import { KernelError } from "../kernel/index.ts";
import { NetdevError } from "./error.ts";
import type { Session } from "./read.ts";
import type { PfPort } from "./vf-settings.ts";

/** Some drivers (iavf) take an address only after they have talked to the PF. */
const TAKES_MS = 2_000;
const LOOK_EVERY_MS = 20;

export interface LinkMac {
  readonly session: Session;
  /** In the session's namespace; the link is down, or its driver takes a new address while it is up. */
  readonly ifindex: number;
  readonly mac: string;
  readonly vf?: { readonly port: PfPort; readonly index: number } | undefined;
  readonly clock: Clock;
}

/**
 * Gives a link its own address and waits until it has it. The PF's word alone does not do: igbvf reads the
 * administrative address only when it is bound, and drops every frame until then.
 * @throws {NetdevError} of kind "mac-not-taken" when it has another address still: binding the VF anew may help.
 */
export async function setLinkMac(wish: LinkMac): Promise<void> {
  if ((await macNow(wish)) === wish.mac) return;
  let refusal: unknown;
  try {
    await setAddress(wish);
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    refusal = await trySetTrusted(wish, error);
  }
  // A PF that resets its VF sets the address too, so the refusal is not the last word.
  const until = wish.clock.monotonicMs() + TAKES_MS;
  while ((await macNow(wish)) !== wish.mac) {
    if (wish.clock.monotonicMs() >= until) {
      const problem = refusal instanceof Error ? refusal.message : `it did not change within ${TAKES_MS} ms`;
      throw new NetdevError(
        { kind: "mac-not-taken", ifindex: wish.ifindex, mac: wish.mac, problem },
        { cause: refusal },
      );
    }
    await wish.clock.sleep(LOOK_EVERY_MS);
  }
}

/** A VF with an administrative address may choose another only while the PF trusts it. */
async function trySetTrusted(wish: LinkMac, refusal: KernelError): Promise<unknown> {
  const { vf } = wish;
  if (!vf || (await vf.port.read(vf.index)).trust !== false) return refusal;
  await vf.port.write(vf.index, { trust: true });
  try {
    await setAddress(wish);
    return undefined;
  } catch (error) {
    return error;
  } finally {
    await vf.port.write(vf.index, { trust: false });
  }
}

async function setAddress({ session, ifindex, mac }: LinkMac): Promise<void> {
  try {
    await session.rtnl.setLink(ifindex, { address: mac });
  } catch (error) {
    if (!(error instanceof KernelError) || error.code !== "EBUSY") throw error;
    // Its driver changes no address while it is up; the plan that follows brings it up again.
    await session.rtnl.setLink(ifindex, { up: false });
    await session.rtnl.setLink(ifindex, { address: mac });
  }
}

async function macNow({ session, ifindex }: LinkMac): Promise<string | undefined> {
  return (await session.rtnl.linkByIndex(ifindex))?.address;
}
