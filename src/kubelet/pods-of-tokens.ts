import { type HostFiles, KernelError } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import { CHECKPOINT_FILE, type Checkpoint, parseCheckpoint } from "./checkpoint.ts";

/** Who got a token. */
export interface TokenPod {
  /** As kubelet names its cgroup: for a static pod its hash. */
  readonly uid: string;
  readonly container: string;
}

/** The pods that hold tokens, by kubelet's own record: read again each time, for kubelet writes it just before a pod starts. */
export class PodsOfTokens {
  readonly #files: Pick<HostFiles, "readText">;
  readonly #log: Log;

  constructor(files: Pick<HostFiles, "readText">, log: Log) {
    this.#files = files;
    this.#log = log;
  }

  /** Undefined where there is no such record. Without it everything works; pods in their init containers are then known by time alone. */
  async read(): Promise<Checkpoint | undefined> {
    try {
      return parseCheckpoint(await this.#files.readText(CHECKPOINT_FILE));
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      this.#log.debug("checkpoint-unreadable", { code: error.code });
      return undefined;
    }
  }

  /** Who got the token; undefined where kubelet's record is silent. */
  async podOf(tokenId: string): Promise<TokenPod | undefined> {
    const holder = (await this.read())?.get(tokenId);
    return holder && { uid: holder.podUid, container: holder.container };
  }

  /** UIDs of the pods that have devices of these resources; none where kubelet's record is silent. */
  async podsWith(resources: readonly string[]): Promise<ReadonlySet<string>> {
    const holders = [...((await this.read())?.values() ?? [])];
    return new Set(holders.flatMap(({ resource, podUid }) => (resources.includes(resource) ? [podUid] : [])));
  }
}

/** Kubelet's file in its device plugin folder. */
export function openCheckpoint(openFolder: (path: string) => HostFiles, folder: string, log: Log): PodsOfTokens {
  return new PodsOfTokens(openFolder(folder), log);
}
