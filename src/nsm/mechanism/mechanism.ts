import type { ConnectionContext } from "../../gen/connectioncontext_pb.ts";
import type { OwnedFd } from "../peers.ts";
import type { InodeUrl } from "./inode-url.ts";
import type { DesiredMechanism } from "./requested-mechanism.ts";

/** What a connection requests of a mechanism. */
export interface MechanismRequest<W extends DesiredMechanism = DesiredMechanism> {
  readonly connectionId: string;
  readonly desired: W;
  readonly files: PassedFilesOfCall;
  /** What the client says it was given before; undefined where it says nothing. A later call may say something else. */
  readonly given?: ConnectionContext | undefined;
  /** Aborted when the caller has gone, or its deadline passed: stop, nothing may be left half done without `release`. */
  readonly signal: AbortSignal;
}

/** The files that came with one call. */
export interface PassedFilesOfCall {
  /** Waits a bounded time; the caller owns the descriptor. @throws {NsmError} no-namespace. */
  receive(url: InodeUrl, signal: AbortSignal): Promise<OwnedFd>;
}

/** One kind of mechanism on this node. */
export interface MechanismDriver<W extends DesiredMechanism = DesiredMechanism> {
  /**
   * Reserves what the connection needs, without touching the node.
   * @throws when there is none to have; nothing is held then.
   */
  open(request: MechanismRequest<W>): Promise<Attachment<W>>;
  /** What the previous instance reserved, and perhaps applied, for the connection. Touches nothing. @throws when it is not there. */
  adopt(request: MechanismRequest<W>): Attachment<W>;
}

/** What one connection holds of this node, from `open` until `release` has succeeded. Only what it `canServe` is requested of it. */
export interface Attachment<W extends DesiredMechanism = DesiredMechanism> {
  /** Parameters to add to the mechanism in the answer, for example the PCI address. */
  readonly parameters: Readonly<Record<string, string>>;
  /**
   * Everything that can be done before the endpoint has agreed: the VF is bound, the namespace received. Nothing reaches
   * the client yet. What a failure leaves is for `release`.
   */
  prepare(request: MechanismRequest<W>): Promise<void>;
  /** The original's resetmechanism: true if `apply` can make this attachment serve `desired`; else it must be released first. */
  canServe(desired: DesiredMechanism): boolean;
  /**
   * Makes the node as desired, and the context true for the client. Repeatable: compares first, writes only differences,
   * follows the client into another namespace. A failure leaves what is so to `release` or to the next `apply`.
   */
  apply(request: MechanismRequest<W>, context: ConnectionContext | undefined): Promise<void>;
  /** True if the node is as `apply` with the same `desired` and this context would leave it. Reads only. */
  isInForce(context: ConnectionContext | undefined, signal: AbortSignal): Promise<boolean>;
  /** A call names the client's files again: takes what is missing since our restart. Nothing to do otherwise. */
  receiveFiles(files: PassedFilesOfCall, signal: AbortSignal): Promise<void>;
  /**
   * Restores everything to the host. Continues past errors and throws the first; call it again to retry what failed. No other
   * client gets the VF until this has succeeded.
   */
  release(): Promise<void>;
  /** Closes what it holds open and touches nothing: the service stops, and the client keeps what it has. */
  close(): void;
}

/** What this node can give; a type that is missing cannot be given. */
export type MechanismDrivers = {
  readonly [T in DesiredMechanism["type"]]?: MechanismDriver<Extract<DesiredMechanism, { readonly type: T }>>;
};
