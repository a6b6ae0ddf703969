import type { Connection } from "../../gen/connection_pb.ts";
import type { Onward } from "../endpoint/endpoint-client.ts";
import type { EndpointWatch } from "../endpoint/watch-endpoint.ts";
import type { Attachment } from "../mechanism/mechanism.ts";
import type { MechanismChoice, WantedMechanism } from "../mechanism/requested-mechanism.ts";
import type { Owner } from "../permission/connection-owner.ts";
import type { Expiry } from "./expiry.ts";

/** `opening`: its first Request is running. `standing`: served. `reclaiming`: being taken down, tried again until clean. */
export type Phase = "opening" | "standing" | "reclaiming";

/**
 * Everything that one connection holds: what the original's elements keep in metadata. What is undefined is not held, so that
 * a teardown can be repeated.
 */
export interface ConnectionRecord {
  readonly id: string;
  /** Who may act on it; a refresh by a later manager makes that one the owner. */
  owner: Owner;
  /** What it counts against the quota of its owner: quota.ts. */
  holdsVf: boolean;
  bytes: number;
  phase: Phase;
  /** Whose it is, see `clientOf`. */
  client: string | undefined;
  /** While it stands: ends it unless refreshed. While it is being reclaimed: the next try. */
  readonly expiry: Expiry;
  /** As of the last answer, at our own index, with the mechanism that the client sees. */
  connection: Connection | undefined;
  choice: MechanismChoice | undefined;
  wanted: WantedMechanism | undefined;
  /** What a Request is making of it, or has failed to; undefined as soon as it stands. */
  begun: { readonly wanted: WantedMechanism; readonly connection: Connection } | undefined;
  attachment: Attachment | undefined;
  onward: Onward | undefined;
  /** An earlier process asked an endpoint for it, and this one has not yet: it is to be looked for when it must be told. */
  hasUnknownEndpoint: boolean;
  watch: EndpointWatch | undefined;
  /** Teardowns that failed so far. */
  failedTries: number;
}

/** The connections of this forwarder by their id. */
export type Connections = Map<string, ConnectionRecord>;

/** A record that holds nothing yet. */
export function openRecord(id: string, owner: Owner, expiry: Expiry): ConnectionRecord {
  return {
    id,
    owner,
    holdsVf: false,
    bytes: 0,
    phase: "opening",
    client: undefined,
    expiry,
    connection: undefined,
    choice: undefined,
    wanted: undefined,
    begun: undefined,
    attachment: undefined,
    onward: undefined,
    hasUnknownEndpoint: false,
    watch: undefined,
    failedTries: 0,
  };
}
