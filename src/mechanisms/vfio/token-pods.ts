// What VFIO must know of tokens; who knows it is outside: checkpoint-pods.ts above the rooms.

/** Who got a token. */
export interface TokenPod {
  /** As kubelet names its cgroup: for a static pod its hash. */
  readonly uid: string;
  readonly container: string;
}

/** The pods that hold tokens. */
export interface TokenPods {
  /** Undefined where kubelet's record is silent. */
  podOf(tokenId: string): Promise<TokenPod | undefined>;
  /** UIDs of the pods that have devices of these resources; none where kubelet's record is silent. */
  podsWith(resources: readonly string[]): Promise<ReadonlySet<string>>;
}
