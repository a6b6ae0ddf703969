import type { ConnectionContext } from "../../gen/connectioncontext_pb.ts";
import type { Attachment, MechanismAsk, MechanismDriver } from "./mechanism.ts";
import { PARAMETER, type WantedMechanism, type WantedVfio } from "./requested-mechanism.ts";

/** Virtual functions to be had as VFIO devices. */
export interface VfioVfSource {
  /** Reserves the token's function for the connection and the token's pod. @throws when there is none to have. */
  take(ask: VfioAsk): Promise<VfioVf>;
  /** The function that an earlier process gave to the connection. @throws when it is not the connection's. */
  adopt(ask: VfioAsk): VfioVf;
}

/** Who wants a function, and for which token. */
export interface VfioAsk {
  readonly connectionId: string;
  readonly tokenId: string;
  /** Where the client believes its cgroup to be, to be compared with the pod's; "" when it does not know. */
  readonly cgroupDir: string;
}

/** What an endpoint wishes for the function, as it came. */
export interface AskedVfio {
  readonly cgroupDir: string;
  readonly mac: string;
  readonly vlan: number;
}

/** Device numbers by which a client makes its nodes. */
export interface VfioNumbers {
  readonly group: number;
  readonly container: { readonly major: number; readonly minor: number };
  readonly device: { readonly major: number; readonly minor: number };
}

/** One virtual function as a VFIO device, held for one connection. Each step can be repeated. */
export interface VfioVf {
  /** Its PCI address. */
  readonly address: string;
  /** Known since `bind`, `grant` or `stands`. */
  readonly numbers: VfioNumbers | undefined;
  /** Binds its IOMMU group to VFIO; resolves when its node is there. Nobody can open it yet. */
  bind(signal: AbortSignal): Promise<void>;
  /** Settings on the PF as asked, then lets the pod open it; only differences when it stands already. */
  grant(asked: AskedVfio, signal: AbortSignal): Promise<void>;
  /** True if `grant` with the same would change nothing. Reads only. */
  stands(asked: AskedVfio): Promise<boolean>;
  /**
   * Takes the pod's access away and proves it, waits a moment for a process that has it open, and makes the PF what it was.
   * @throws when access stands, or somebody still has it open: it may not be anybody else's then, and this is tried again.
   */
  revoke(): Promise<void>;
  /** Nobody holds it any more. After `revoke`. */
  giveBack(): Promise<void>;
  /** Lets go of it without touching anything. */
  letGo(): void;
}

/** Gives clients a VF as a VFIO device that only their pod may open: the original's resourcepool and vfio. */
export function vfioDriver(source: VfioVfSource): MechanismDriver<WantedVfio> {
  return {
    async open({ connectionId, wanted }) {
      return new VfioAttachment(await source.take({ ...wanted, connectionId }), wanted);
    },
    adopt({ connectionId, wanted }) {
      return new VfioAttachment(source.adopt({ ...wanted, connectionId }), wanted);
    },
  };
}

class VfioAttachment implements Attachment {
  readonly #vf: VfioVf;
  #wanted: WantedVfio;
  #isGivenBack = false;

  constructor(vf: VfioVf, wanted: WantedVfio) {
    this.#vf = vf;
    this.#wanted = wanted;
  }

  get parameters(): Readonly<Record<string, string>> {
    const { address, numbers } = this.#vf;
    if (!numbers) return { [PARAMETER.pciAddress]: address };
    const { group, container, device } = numbers;
    return {
      [PARAMETER.pciAddress]: address,
      [PARAMETER.iommuGroup]: String(group),
      [PARAMETER.vfioMajor]: String(container.major),
      [PARAMETER.vfioMinor]: String(container.minor),
      [PARAMETER.deviceMajor]: String(device.major),
      [PARAMETER.deviceMinor]: String(device.minor),
    };
  }

  async prepare({ signal }: MechanismAsk): Promise<void> {
    await this.#vf.bind(signal);
  }

  canBecome(wanted: WantedMechanism): boolean {
    return wanted.type === "VFIO" && wanted.tokenId === this.#wanted.tokenId && !this.#isGivenBack;
  }

  async apply({ wanted, signal }: MechanismAsk, context: ConnectionContext | undefined): Promise<void> {
    if (wanted.type !== "VFIO") throw new Error(`The VFIO mechanism was asked for ${wanted.type}`);
    await this.#vf.grant(askedVfio(wanted, context), signal);
    this.#wanted = wanted;
  }

  async stands(context: ConnectionContext | undefined): Promise<boolean> {
    return await this.#vf.stands(askedVfio(this.#wanted, context));
  }

  async meet(): Promise<void> {}

  async release(): Promise<void> {
    if (this.#isGivenBack) return;
    await this.#vf.revoke();
    await this.#vf.giveBack();
    this.#isGivenBack = true;
  }

  letGo(): void {
    this.#vf.letGo();
  }
}

/** The client is the source side: sriov-behaviour §6.2, step 7. */
function askedVfio({ cgroupDir }: WantedVfio, context: ConnectionContext | undefined): AskedVfio {
  const { srcMac = "", vlanTag = 0 } = context?.ethernetContext ?? {};
  return { cgroupDir, mac: srcMac, vlan: vlanTag };
}
