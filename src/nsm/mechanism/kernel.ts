import type { ConnectionContext } from "../../gen/connectioncontext_pb.ts";
import type { AskedNetdev } from "../../netdev/index.ts";
import type { OwnedFd } from "../needs.ts";
import type { InodeUrl } from "./inode-url.ts";
import type { Attachment, MechanismAsk, MechanismDriver, PassedFilesOfCall } from "./mechanism.ts";
import { PARAMETER, type WantedKernel, type WantedMechanism } from "./requested-mechanism.ts";
import { askedNetdev } from "./requested-netdev.ts";
import { both } from "./run-both.ts";

/** Virtual functions to be had as network devices. */
export interface KernelVfSource {
  /** Reserves the token's function for the connection. @throws when there is none to have. */
  take(ask: { readonly connectionId: string; readonly tokenId: string }): KernelVf;
}

/** One virtual function as a network device, held for one connection. Each step can be repeated. */
export interface KernelVf {
  /** Its PCI address. */
  readonly address: string;
  /** Touches nothing. @throws when the descriptor is no network namespace, or the host's own. */
  check(netns: OwnedFd): void;
  /** Binds it to its kernel driver; resolves when its network device is there. */
  bind(signal: AbortSignal): Promise<void>;
  /**
   * Makes the network device as asked inside the namespace: settings on the PF first, then the move, then the rest; only
   * differences when it is there already. The descriptor stays the caller's.
   * @throws when the descriptor is no network namespace, or the host's own.
   */
  attach(netns: OwnedFd, asked: AskedNetdev, signal: AbortSignal): Promise<void>;
  /** True if `attach` with the same would change nothing. Reads only. */
  stands(asked: AskedNetdev, signal: AbortSignal): Promise<boolean>;
  /**
   * Brings it home and makes it as it was before the client; nothing to do when it never left. `elsewhere`: the same
   * connection attaches it again, in another namespace. The client's namespace is needed only where an earlier process
   * attached it.
   */
  detach(goes: "home" | "elsewhere", netns?: OwnedFd): Promise<void>;
  /** Nobody holds it any more. After `detach`. */
  giveBack(): Promise<void>;
  /** Closes its handle of the namespace, without touching the network device. */
  letGo(): void;
}

/** Gives clients a VF as a network device in their namespace: the original's resourcepool and inject for KERNEL. */
export function kernelDriver(source: KernelVfSource): MechanismDriver<WantedKernel> {
  // The inventory gives an earlier process's function to its connection again, as it does at every call.
  const take = ({ connectionId, wanted }: MechanismAsk<WantedKernel>) =>
    new KernelAttachment(source.take({ connectionId, tokenId: wanted.tokenId }), wanted);
  return { open: async (ask) => take(ask), adopt: take };
}

class KernelAttachment implements Attachment {
  readonly #vf: KernelVf;
  #wanted: WantedKernel;
  /** The client's namespace, ours to close: it is needed to bring the function home, whatever the peers do (E1). */
  #netns: OwnedFd | undefined;
  /** Undefined until it is attached somewhere. */
  #where: string | undefined;
  #isGivenBack = false;

  constructor(vf: KernelVf, wanted: WantedKernel) {
    this.#vf = vf;
    this.#wanted = wanted;
  }

  get parameters(): Readonly<Record<string, string>> {
    return { [PARAMETER.pciAddress]: this.#vf.address };
  }

  async prepare(ask: MechanismAsk): Promise<void> {
    const { netns } = kernelPart(ask.wanted);
    const [fd] = await both(
      ask.signal,
      { run: (signal) => this.#receive(ask.files, netns, signal), drop: (received) => received.close() },
      { run: (signal) => this.#vf.bind(signal) },
    );
    this.#netns = fd;
  }

  /** What cannot be used is refused before the endpoint is asked and the function is touched. */
  async #receive(files: PassedFilesOfCall, url: InodeUrl, signal: AbortSignal): Promise<OwnedFd> {
    const fd = await files.receive(url, signal);
    try {
      this.#vf.check(fd);
      return fd;
    } catch (error) {
      fd.close();
      throw error;
    }
  }

  canBecome(wanted: WantedMechanism): boolean {
    return wanted.type === "KERNEL" && wanted.tokenId === this.#wanted.tokenId && !this.#isGivenBack;
  }

  async apply(ask: MechanismAsk, context: ConnectionContext | undefined): Promise<void> {
    const wanted = kernelPart(ask.wanted);
    if (this.#where !== undefined && this.#where !== wanted.netns.text) await this.#follow(ask, wanted);
    // After a restart of ours the function is with its client, and the client's namespace comes with its next Request.
    this.#netns ??= await ask.files.receive(wanted.netns, ask.signal);
    // From here on the function may be away, even if the next step fails.
    this.#where = wanted.netns.text;
    await this.#vf.attach(this.#netns, askedNetdev(wanted, context), ask.signal);
    this.#wanted = wanted;
  }

  async stands(context: ConnectionContext | undefined, signal: AbortSignal): Promise<boolean> {
    return await this.#vf.stands(askedNetdev(this.#wanted, context), signal);
  }

  async meet(files: PassedFilesOfCall, signal: AbortSignal): Promise<void> {
    if (!this.#isGivenBack) this.#netns ??= await files.receive(this.#wanted.netns, signal);
  }

  async release(): Promise<void> {
    if (this.#isGivenBack) return;
    await this.#vf.detach("home", this.#netns);
    this.#where = undefined;
    this.#netns?.close();
    this.#netns = undefined;
    await this.#vf.giveBack();
    this.#isGivenBack = true;
  }

  letGo(): void {
    this.#vf.letGo();
    this.#netns?.close();
    this.#netns = undefined;
  }

  /** The client lives in another namespace now, after a restart for example (E13). */
  async #follow(ask: MechanismAsk, wanted: WantedKernel): Promise<void> {
    const fd = await ask.files.receive(wanted.netns, ask.signal);
    try {
      await this.#vf.detach("elsewhere");
    } catch (error) {
      fd.close();
      throw error;
    }
    this.#netns?.close();
    this.#netns = fd;
    this.#where = undefined;
  }
}

function kernelPart(wanted: WantedMechanism): WantedKernel {
  if (wanted.type !== "KERNEL") throw new Error(`The KERNEL mechanism was asked for ${wanted.type}`);
  return wanted;
}
