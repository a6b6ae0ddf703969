import { printable } from "../async/index.ts";

/** Why a pod's processes could not be let at a device, or could not be kept from it again. */
export type AccessFault =
  /** NSM_CGROUP_PATH leads to no hierarchy that decides about devices. */
  | { readonly kind: "no-hierarchy"; readonly path: string; readonly problem: string }
  /** What a client sent as its cgroup, or what should be a pod's UID, is not acceptable; never retry. */
  | { readonly kind: "bad-name"; readonly text: string; readonly problem: string }
  /** Neither kubelet's records nor the client say whose processes are meant. */
  | { readonly kind: "no-pod" }
  /** What a client sent as its cgroup is not within the pod that its token belongs to; never retry. */
  | { readonly kind: "foreign-cgroup"; readonly text: string; readonly pod: string }
  /** The pod has no cgroup (yet, or any more), or none that the client named. */
  | { readonly kind: "no-cgroup"; readonly pod: string; readonly searched: string }
  /** A cgroup above the pod's, which other pods share, refuses the device. */
  | { readonly kind: "refused-above"; readonly cgroup: string; readonly device: string; readonly by: string }
  /** A filter of the cgroup cannot be read or added to. Nothing was changed. */
  | { readonly kind: "foreign-filter"; readonly cgroup: string; readonly program: string; readonly problem: string }
  /** The kernel did not take a rule or a filter. Nothing was changed. */
  | { readonly kind: "not-taken"; readonly cgroup: string; readonly device: string; readonly problem: string }
  /** Another program keeps changing the filters of the cgroup. */
  | { readonly kind: "unsettled"; readonly cgroup: string; readonly tries: number }
  /** Access that we have given is still in force: the device must not go to another pod. */
  | { readonly kind: "not-revoked"; readonly pod: string; readonly left: readonly string[] };

/** A pod's access to device nodes could not be changed as requested. */
export class AccessError extends Error {
  override readonly name = "AccessError";
  readonly fault: AccessFault;

  constructor(fault: AccessFault, options?: ErrorOptions) {
    super(describe(fault), options);
    this.fault = fault;
  }
}

function describe(fault: AccessFault): string {
  switch (fault.kind) {
    case "no-hierarchy":
      return `Cannot find the device cgroups of this host at ${fault.path}: ${fault.problem}; set NSM_CGROUP_PATH to where the host's /sys/fs/cgroup/devices, or /sys/fs/cgroup on a unified host, is mounted`;
    case "bad-name":
      return `Cannot take "${printable(fault.text)}" as the cgroup of a client: ${fault.problem}`;
    case "no-pod":
      return "Cannot find the client's cgroup: kubelet's records name no pod for its token, and it sent no cgroupDir";
    case "foreign-cgroup":
      return `Cannot take "${printable(fault.text)}" as the cgroup of a client: it is not within the pod that has the token; send none, and the pod's own is found`;
    case "no-cgroup":
      return `Cannot find the cgroup of pod ${fault.pod}: ${fault.searched}`;
    case "refused-above":
      return `Cannot let the pod open ${fault.device}: ${fault.by} of cgroup ${fault.cgroup}, which other pods share, refuses it; allow it there`;
    case "foreign-filter":
      return `Cannot add to ${fault.program} of cgroup ${fault.cgroup}: ${fault.problem}`;
    case "not-taken":
      return `Cannot change the access of cgroup ${fault.cgroup} to ${fault.device}: ${fault.problem}`;
    case "unsettled":
      return `Cannot settle the device filters of cgroup ${fault.cgroup}: another program changed them during each of ${fault.tries} tries`;
    case "not-revoked":
      return `Cannot prove that pod ${fault.pod} has lost its access: ${fault.left.join("; ")}`;
  }
}
