// Which pod a token belongs to, by kubelet's own record: read anew each time, for kubelet writes it just before a pod starts.
import { BlockingWrites, KernelError, openHostFiles } from "../kernel/index.ts";
import { CHECKPOINT_FILE, parseCheckpoint } from "../kubelet/index.ts";
import type { TokenPods } from "../mechanisms/index.ts";
import type { Log } from "../telemetry/index.ts";

/** @param readCheckpoint see `checkpointReader`. */
export function tokenPods(readCheckpoint: () => Promise<string | undefined>): TokenPods {
  return {
    async podOf(tokenId) {
      const text = await readCheckpoint();
      const holder = text === undefined ? undefined : parseCheckpoint(text)?.get(tokenId);
      return holder && { uid: holder.podUid, container: holder.container };
    },
    async podsWith(resources) {
      const text = await readCheckpoint();
      const holders = [...((text === undefined ? undefined : parseCheckpoint(text)) ?? new Map()).values()];
      return new Set(holders.flatMap(({ resource, podUid }) => (resources.includes(resource) ? [podUid] : [])));
    },
  };
}

/** Kubelet's file in its device plugin folder; undefined when it cannot be read. */
export function checkpointReader(folder: string, log: Log): () => Promise<string | undefined> {
  const files = openHostFiles(folder, new BlockingWrites());
  return async () => {
    try {
      return await files.readText(CHECKPOINT_FILE);
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      log.debug("checkpoint-unreadable", { code: error.code });
      return undefined;
    }
  };
}
