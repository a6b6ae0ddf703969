import { type ConnectionRecord, type Connections, onwardOf } from "./connections.ts";

/** A connection as the status page shows it; without tokens. */
export interface ConnectionSummary {
  /** By what it is known here, in the log and on disk. */
  readonly id: string;
  /** On its path: another one where its client has come by another path since, or another owner has the same. */
  readonly pathId: string;
  readonly phase: string;
  readonly mechanism: string;
  /** The name that the client has on the path. */
  readonly client: string | undefined;
  readonly networkService: string;
  readonly endpoint: string | undefined;
  /** Unix time at which it ends unless it is refreshed, in ms; undefined while it is not established. */
  readonly expiresMs: number | undefined;
}

/** All connections, the oldest first. */
export function summaries(connections: Connections): readonly ConnectionSummary[] {
  return [...connections.values()].map(summary);
}

function summary(record: ConnectionRecord): ConnectionSummary {
  const { phase, desired, connection } = record.state;
  const endpoint = onwardOf(record)?.candidate.name ?? connection.networkServiceEndpointName;
  return {
    id: record.id,
    pathId: connection.id,
    phase,
    mechanism: desired.type,
    client: connection.path?.pathSegments[0]?.name,
    networkService: connection.networkService,
    endpoint: endpoint === "" ? undefined : endpoint,
    expiresMs: phase === "established" ? record.expiry.dueMs : undefined,
  };
}
