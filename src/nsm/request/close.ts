import { clone } from "@bufbuild/protobuf";
import { type Connection, ConnectionSchema } from "../../gen/connection_pb.ts";
import type { Call } from "../../rpc/index.ts";
import { NsmError } from "../fault.ts";
import type { FilesOfCalls } from "../mechanism/call-files.ts";
import { extendPath } from "../path.ts";
import { admit, type Gate } from "../permission/authorize.ts";
import { checkConnectionSize } from "../permission/request-limits.ts";
import { receiveFiles, type TeardownDeps, type TeardownOutcome, takeDown } from "./teardown.ts";

/** Everything that serving a Close takes. */
export interface CloseDeps extends Gate, TeardownDeps {
  readonly name: string;
  readonly newId: () => string;
  readonly files: FilesOfCalls;
}

/**
 * Serves a Close. What is established is taken down as it was stored, whatever the caller's message says of it; a connection
 * that is not known is closed already. It waits for the connection's turn even when its caller has gone: a Close that is
 * dropped would hold the VF until the tokens expire.
 * @throws {NsmError} teardown-failed: it is tried again, and a repeated Close tries too; endpoint-close-failed.
 */
export async function close(deps: CloseDeps, closed: Connection, call: Call): Promise<void> {
  checkConnectionSize(closed);
  const connection = clone(ConnectionSchema, closed);
  const place = extendPath(connection, deps.name, deps.newId);
  const files = deps.files.open(call.connection.fds, [connection.mechanism]);
  try {
    await deps.turns.run(connection.id, async () => {
      const record = deps.connections.get(connection.id);
      if (!record) return;
      admit(deps, call, { connection, place, owner: record.owner });
      if (record.state.onward === "unknown") renewTokens(record.state.connection, connection);
      await receiveFiles(deps, record, { files, signal: call.signal });
      const failure = failureOf(await takeDown(deps, record, "closed"));
      if (failure) throw failure;
    });
  } finally {
    files.end();
  }
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

/** No token outlives a restart of ours, and the endpoint wants to see those of the whole path. */
function renewTokens(stored: Connection, closed: Connection): void {
  for (const [index, { id, token, expires }] of (closed.path?.pathSegments ?? []).entries()) {
    const segment = stored.path?.pathSegments[index];
    if (segment?.id !== id) return;
    segment.token = token;
    if (expires) segment.expires = expires;
  }
}
