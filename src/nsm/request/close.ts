import { toBinary } from "@bufbuild/protobuf";
import { type Connection, ConnectionSchema } from "../../gen/connection_pb.ts";
import { type Call, copyMessage } from "../../rpc/index.ts";
import { NsmError } from "../fault.ts";
import type { FilesOfCalls } from "../mechanism/call-files.ts";
import { extendPath, nextSegment, renewTokens } from "../path.ts";
import { admit, type Gate } from "../permission/authorize.ts";
import { actingPeer } from "../permission/connection-owner.ts";
import { checkConnectionSize } from "../permission/request-limits.ts";
import type { ConnectionKeys } from "./connection-key.ts";
import { checkWaiting, type TurnDeps } from "./connection-turn.ts";
import type { ConnectionRecord } from "./connections.ts";
import type { SegmentNames } from "./segment-names.ts";
import { receiveFiles, type TeardownDeps, type TeardownOutcome, takeDown } from "./teardown.ts";

/** As long as a client of NSM waits for a Request. */
const HOLD_BACK_MS = 15_000;

/** Everything that serving a Close takes. */
export interface CloseDeps extends Gate, TeardownDeps, TurnDeps {
  readonly name: string;
  readonly names: SegmentNames;
  readonly newId: () => string;
  readonly files: FilesOfCalls;
  readonly keys: ConnectionKeys;
}

/**
 * Serves a Close. What is established is taken down as it was stored, whatever the caller's message says of it; a connection
 * that is not known is closed already, and one that another owner has is refused. It waits for the connection's turn even when
 * its caller has gone: a Close that is dropped would hold the VF until the tokens expire.
 * @throws {NsmError} teardown-failed: it is tried again, and a repeated Close tries too; endpoint-close-failed.
 */
export async function close(deps: CloseDeps, closed: Connection, call: Call): Promise<void> {
  checkConnectionSize(closed);
  const { name, newId, names } = deps;
  const isOfManager = call.connection.peer?.spiffeId === deps.manager.spiffeId;
  if (isOfManager && names.isKnownByOther(name, closed)) {
    deps.log.info("close-of-former-socket", { connection: nextSegment(closed)?.id });
    return;
  }
  const connection = copyMessage(closed);
  const place = extendPath(connection, { name, newId, isOurs: (segment) => names.isOurs(segment) });
  const files = deps.files.open(call.connection.fds, [connection.mechanism]);
  const entered = deps.keys.enter(actingPeer(call.connection.peer, connection, deps.name), connection.id);
  try {
    const sizeBytes = () => toBinary(ConnectionSchema, closed).length;
    checkWaiting(deps, entered.key, { method: "Close", id: connection.id, sizeBytes });
    await deps.turns.run(entered.key, async () => {
      const record = deps.connections.get(entered.key);
      if (!record && deps.keys.isKnown(connection.id)) throw new NsmError({ kind: "not-the-owner", id: connection.id });
      // Also one that continues by another path of its client: the earlier path is closed already.
      if (record?.state.connection.id !== connection.id) return;
      admit(deps, call, { connection, place, owner: record.owner });
      if (record.state.onward === "unknown") renewTokens(record.state.connection, connection);
      await receiveFiles(deps, record, { files, signal: call.signal });
      if (isPerhapsOfManager(deps, record, closed.path?.pathSegments[place.index]?.name)) {
        deps.log.info("close-held-back", { connection: record.id, holdBackMs: HOLD_BACK_MS });
        record.expiry.holdBackClose(HOLD_BACK_MS);
        return;
      }
      const failure = failureOf(await takeDown(deps, record, "closed"));
      if (failure) throw failure;
    });
  } finally {
    entered.leave();
    files.end();
  }
}

/**
 * By an earlier name, and no Request of its connection has been answered since our start: a manager sends a Close where a socket of ours was
 * before it sends the Request of the same client, and one of its own where a client reselects, to the former URL if the name is not found
 * (sdk: common/begin, discoverforwarder, dial; a descriptor's number that was freed leads to a socket of ours by then, to any). So does a
 * client that takes our restart for its endpoint's end. A Request that follows is proof; a client that has left is not missed for so long.
 */
function isPerhapsOfManager({ names }: CloseDeps, { state }: ConnectionRecord, name: string | undefined): boolean {
  return name !== names.own && state.phase === "established" && state.onward === "unknown";
}

function failureOf(outcome: TeardownOutcome): NsmError | undefined {
  switch (outcome.kind) {
    case "ended":
      return undefined;
    case "endpoint-not-closed":
      return new NsmError({ kind: "endpoint-close-failed", failure: outcome.error });
    case "resists":
      return new NsmError({ kind: "teardown-failed", failure: outcome.error });
  }
}
