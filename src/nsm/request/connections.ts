import type { Backoff } from "../../async/index.ts";
import type { Connection } from "../../gen/connection_pb.ts";
import type { Onward } from "../endpoint/try-candidates.ts";
import type { EndpointWatch } from "../endpoint/watch-endpoint.ts";
import type { Attachment } from "../mechanism/mechanism.ts";
import type { DesiredMechanism } from "../mechanism/requested-mechanism.ts";
import type { Held } from "../permission/quota.ts";
import type { ConnectionExpiry } from "./connection-expiry.ts";

/** Everything that one connection holds: what the original's elements keep in metadata. */
export interface ConnectionRecord extends Held {
  /** Its key: connection-key.ts. On its path it has the id of `state.connection`. */
  readonly id: string;
  /** A refresh by a later manager makes that one the owner. */
  owner: Held["owner"];
  holdsVf: boolean;
  bytes: number;
  /** Whose it is, see `clientOf`. */
  client: string | undefined;
  /** Its client has not come back since our start: the journal has since when. */
  isUnheard?: boolean;
  /** Ends an established connection unless it is refreshed; of one that is being reclaimed the next try. */
  readonly expiry: ConnectionExpiry;
  watch: EndpointWatch | undefined;
  state: ConnectionState;
}

type ConnectionState = OpeningConnection | EstablishedConnection | ReclaimingConnection;

/** What a connection is for, and who serves it. */
export interface ConnectionContent {
  /** At our own index, with the client's mechanism: as requested while it opens, then as of the last answer. */
  readonly connection: Connection;
  readonly desired: DesiredMechanism;
  /** `unknown`: a previous instance sent its Request to an endpoint that this one does not know; a Close looks it up. */
  onward: Onward | "unknown" | undefined;
}

/** Its first Request, or that for another mechanism, is running. */
interface OpeningConnection extends ConnectionContent {
  readonly phase: "opening";
  readonly attachment: Attachment | undefined;
}

/** It is served. */
interface EstablishedConnection extends ConnectionContent {
  readonly phase: "established";
  readonly attachment: Attachment;
}

/** It is being taken down, again and again until it is clean. */
export interface ReclaimingConnection extends ConnectionContent {
  readonly phase: "reclaiming";
  readonly attachment: Attachment | undefined;
  readonly retries: Backoff;
}

/** The connections of this forwarder by their key: connection-key.ts. */
export type Connections = Map<string, ConnectionRecord>;

/** The endpoint that serves the connection, as far as this instance knows. */
export function onwardOf({ state: { onward } }: Pick<ConnectionRecord, "state">): Onward | undefined {
  return onward === "unknown" ? undefined : onward;
}
