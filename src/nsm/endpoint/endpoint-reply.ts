import type { Connection, Mechanism } from "../../gen/connection_pb.ts";
import { copyMessage } from "../../rpc/index.ts";
import { NsmError, textOf } from "../fault.ts";
import { ownSegment } from "../path.ts";
import { checkConnectionSize } from "../permission/request-limits.ts";

/** An endpoint's answer that agrees with our Request. */
export interface Reply {
  /** Our connection as it is now: still at our own index, without a mechanism, the path continued by the endpoint. */
  readonly connection: Connection;
  /** The mechanism that the endpoint agreed to: what it must see again in a refresh and in Close. */
  readonly mechanism: Mechanism | undefined;
}

/**
 * Takes over what an endpoint may decide: context, labels, payload, state, and the path behind us. Our own side of the
 * path and the endpoint's name stay as requested: an answer can neither rename nor redirect the connection (W9).
 * @throws {NsmError} bad-reply.
 */
export function readReply(requested: Connection, reply: Connection, endpoint: string): Reply {
  const refuse = (problem: string) => new NsmError({ kind: "bad-reply", endpoint, problem });
  try {
    checkConnectionSize(reply);
  } catch (error) {
    throw refuse(textOf(error));
  }
  const own = ownSegment(requested);
  const index = requested.path?.index ?? 0;
  const segments = reply.path?.pathSegments ?? [];
  const echoed = segments[index];
  if (!echoed) throw refuse(`its path has ${segments.length} segments, ours is number ${index + 1}`);
  if (echoed.id !== own.id || echoed.name !== own.name) throw refuse("its path has another connection in our place");
  if (reply.id !== "" && !segments.some((segment) => segment.id === reply.id)) {
    throw refuse("its connection id is not on its path");
  }
  if (reply.mechanism && reply.mechanism.type !== "NOOP") {
    throw refuse(`it chose mechanism ${JSON.stringify(reply.mechanism.type.slice(0, 32))}, NOOP was offered`);
  }
  return { connection: merge(requested, reply, index), mechanism: reply.mechanism };
}

function merge(requested: Connection, reply: Connection, index: number): Connection {
  const merged = copyMessage(reply);
  merged.id = requested.id;
  merged.networkService = requested.networkService;
  merged.networkServiceEndpointName = requested.networkServiceEndpointName;
  merged.payload ||= requested.payload;
  delete merged.mechanism;
  const before = (requested.path?.pathSegments ?? []).slice(0, index);
  if (merged.path) {
    merged.path.index = index;
    merged.path.pathSegments = [...before, ...merged.path.pathSegments.slice(index)];
  }
  return merged;
}
