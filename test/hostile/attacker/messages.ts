// Messages of attackers, in the schema of NSM.
import { randomUUID } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type Connection,
  ConnectionSchema,
  MechanismSchema,
  MonitorScopeSelectorSchema,
  PathSegmentSchema,
} from "../../../src/gen/connection_pb.ts";
import { NetworkServiceRequestSchema } from "../../../src/gen/networkservice_pb.ts";
import { doorOf, tokenOf } from "./session.ts";
import { EVIL, type Identity, type Target } from "./target.ts";

export interface Wanted {
  readonly mechanism?: "NOOP" | "KERNEL";
  readonly parameters?: Readonly<Record<string, string>>;
  readonly id?: string;
  readonly service?: string;
  readonly endpoint?: string;
  /** Changes the connection last of all. */
  readonly alter?: (connection: Connection) => void;
}

/** A Request as a client sends it, with its first hop's token. */
export function requestBytes(target: Target, identity: Identity, wanted: Wanted = {}): Uint8Array {
  const { mechanism = "NOOP", parameters = {} } = wanted;
  const request = create(NetworkServiceRequestSchema, {
    connection: connectionOf(target, identity, wanted),
    mechanismPreferences: [create(MechanismSchema, { cls: "LOCAL", type: mechanism, parameters })],
  });
  return toBinary(NetworkServiceRequestSchema, request);
}

/** A Close; by default of a connection that was never requested. */
export function closeBytes(target: Target, identity: Identity, wanted: Wanted = {}): Uint8Array {
  return toBinary(ConnectionSchema, connectionOf(target, identity, wanted));
}

function connectionOf(target: Target, identity: Identity, wanted: Wanted): Connection {
  const { id = randomUUID(), service = target.service, endpoint = "" } = wanted;
  const { token, expiresMs } = tokenOf(identity, doorOf(target).spiffeId);
  const segment = create(PathSegmentSchema, { name: EVIL, id, token, expires: timestampFromMs(expiresMs) });
  const connection = create(ConnectionSchema, {
    id,
    networkService: service,
    networkServiceEndpointName: endpoint,
    path: { index: 0, pathSegments: [segment] },
  });
  wanted.alter?.(connection);
  return connection;
}

/** All connections of the peer. */
export function selectorBytes(name = EVIL): Uint8Array {
  return toBinary(MonitorScopeSelectorSchema, create(MonitorScopeSelectorSchema, { pathSegments: [{ name }] }));
}

/** A message of nothing but that field, again and again. */
export function repeatedBytes(hex: string, count: number): Buffer {
  return Buffer.from(hex.repeat(count), "hex");
}
