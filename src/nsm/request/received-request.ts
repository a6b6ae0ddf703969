// What the files of a Request's life share: one Request in its turn.
import type { Connection } from "../../gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../../gen/networkservice_pb.ts";
import type { Call } from "../../rpc/index.ts";
import type { CallFiles, FilesOfCalls } from "../mechanism/call-files.ts";
import type { MechanismDrivers, MechanismRequest } from "../mechanism/mechanism.ts";
import type { DesiredMechanism, MechanismChoice } from "../mechanism/requested-mechanism.ts";
import type { AdmittedCaller, Gate } from "../permission/authorize.ts";
import type { ConnectionQuota } from "../permission/connection-quota.ts";
import type { ConnectionKeys } from "./connection-key.ts";
import type { TurnDeps } from "./connection-turn.ts";
import { dropForeignSegments } from "./foreign-segments.ts";
import type { OnwardDeps } from "./request-onward.ts";
import type { SegmentNames } from "./segment-names.ts";
import type { SettleDeps } from "./settle.ts";
import type { TeardownDeps } from "./teardown.ts";

/** Everything that serving a Request takes. */
export interface RequestDeps extends Gate, TeardownDeps, TurnDeps, OnwardDeps, SettleDeps {
  /** Our name where the call came in. */
  readonly name: string;
  /** It is an earlier one: only what was made under it is served there. */
  readonly isEarlierName?: boolean;
  readonly names: SegmentNames;
  readonly newId: () => string;
  /** Of our own tokens, in ms; those of our peers live as long, as far as we know. */
  readonly tokenLifetimeMs: number;
  readonly files: FilesOfCalls;
  readonly mechanisms: MechanismDrivers;
  readonly quota: ConnectionQuota;
  readonly keys: ConnectionKeys;
}

/** One Request in its turn. */
export interface ReceivedRequest {
  /** Of the caller's connection. */
  readonly key: string;
  readonly message: NetworkServiceRequest;
  /** At our own index, with the tokens of this hop, without a mechanism. */
  readonly connection: Connection;
  readonly caller: AdmittedCaller;
  readonly call: Call;
  readonly files: CallFiles;
  readonly signal: AbortSignal;
  /** When the signal is aborted at the latest, on the clock that never jumps. */
  readonly endsAtMs: number;
}

/** One way to serve it. */
export interface Way {
  readonly choice: MechanismChoice;
  readonly desired: DesiredMechanism;
}

export function mechanismRequest<W extends DesiredMechanism>(
  { key, connection, files, signal }: ReceivedRequest,
  desired: W,
): MechanismRequest<W> {
  return { connectionId: key, desired, files, given: connection.context, signal };
}

export function onwardQuestion(deps: RequestDeps, { key, connection, caller, signal, endsAtMs }: ReceivedRequest) {
  const beforeOthers = () => {
    dropForeignSegments(deps, connection, { key, acting: caller.acting, isToServing: false });
  };
  return { connection, signal, endsAtMs, beforeOthers };
}
