import type { ConnectionRecord, Connections } from "./connections.ts";

/** A connection in the words of people, for the status page; without tokens. */
export interface ConnectionSummary {
  readonly id: string;
  readonly phase: string;
  readonly mechanism: string | undefined;
  /** The name that the client has on the path. */
  readonly client: string | undefined;
  readonly networkService: string | undefined;
  readonly endpoint: string | undefined;
  /** Unix time at which it ends unless it is refreshed, in ms; undefined while its first Request runs. */
  readonly expiresMs: number | undefined;
}

/** All connections, the oldest first. */
export function summaries(connections: Connections): readonly ConnectionSummary[] {
  return [...connections.values()].map(summary);
}

function summary({ id, phase, wanted, connection, onward, expiry }: ConnectionRecord): ConnectionSummary {
  const endpoint = onward?.candidate.name ?? connection?.networkServiceEndpointName;
  return {
    id,
    phase,
    mechanism: wanted?.type,
    client: connection?.path?.pathSegments[0]?.name,
    networkService: connection?.networkService,
    endpoint: endpoint === "" ? undefined : endpoint,
    expiresMs: phase === "standing" ? expiry.dueMs : undefined,
  };
}
