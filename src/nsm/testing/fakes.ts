// The cast of this module's stories, for tests only: hand fakes that record what is done to them.
import { clone, create, type MessageInitShape, toJson } from "@bufbuild/protobuf";
import { both, type Clock, guarded } from "../../async/index.ts";
import { type Connection, ConnectionSchema } from "../../gen/connection_pb.ts";
import { type ConnectionContext, ConnectionContextSchema } from "../../gen/connectioncontext_pb.ts";
import { type NetworkServiceRequest, NetworkServiceRequestSchema } from "../../gen/networkservice_pb.ts";
import { decodeToken, tokenHeaders } from "../../identity/index.ts";
import { InventoryError } from "../../inventory/index.ts";
import type { Call, Connection as PeerConnection, PeerIdentity } from "../../rpc/index.ts";
import type { Attachment, MechanismDriver, MechanismRequest, PassedFilesOfCall } from "../mechanism/mechanism.ts";
import {
  type DesiredKernel,
  type DesiredMechanism,
  type DesiredNoop,
  type DesiredVfio,
  PARAMETER,
} from "../mechanism/requested-mechanism.ts";
import type { FileId, OwnedFd, PassedFds } from "../peers.ts";
import type { Gate } from "../permission/authorize.ts";

/** A clock that stops until it is moved. */
export class HandClock implements Clock {
  #nowMs: number;
  #timers: { at: number; callback: () => void }[] = [];

  constructor(nowMs = 1_700_000_000_000) {
    this.#nowMs = nowMs;
  }

  now = () => this.#nowMs;
  monotonicMs = () => this.#nowMs;

  after(delayMs: number, callback: () => void) {
    const timer = { at: this.#nowMs + delayMs, callback };
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((entry) => entry !== timer);
      },
    };
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = this.after(delayMs, resolve);
      const aborted = () => {
        timer.cancel();
        reject(signal?.reason);
      };
      if (signal?.aborted) aborted();
      signal?.addEventListener("abort", aborted, { once: true });
    });
  }

  /** How many timers are set. */
  get timerCount(): number {
    return this.#timers.length;
  }

  /** Moves on, firing what is due in its order, and lets the work that follows run. */
  async pass(ms: number): Promise<void> {
    await settled();
    const until = this.#nowMs + ms;
    for (;;) {
      const due = this.#timers.filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.#timers = this.#timers.filter((entry) => entry !== due);
      this.#nowMs = due.at;
      due.callback();
      await settled();
    }
    this.#nowMs = until;
    await settled();
  }
}

/** Lets everything run that can run without time passing. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
}

/** A descriptor that only counts. */
export class PaperFd implements OwnedFd {
  static open = 0;
  static #next = 100;
  readonly number = PaperFd.#next++;
  #isOpen = true;

  constructor() {
    PaperFd.open += 1;
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  close(): void {
    if (this.#isOpen) PaperFd.open -= 1;
    this.#isOpen = false;
  }
}

/** The descriptors of one connection: those in `sent` are there, others never come. */
export class PaperFds implements PassedFds {
  readonly sent = new Set<string>();
  readonly released: string[] = [];
  /** What the connection itself keeps: announced by a call or come with an answer, and not let go of yet. */
  readonly kept = new Set<string>();
  /** Every descriptor that was received. */
  readonly received: PaperFd[] = [];

  receive(id: FileId, signal: AbortSignal): Promise<OwnedFd> {
    const key = `inode://${id.dev}/${id.ino}`;
    if (this.sent.has(key)) {
      const fd = new PaperFd();
      this.received.push(fd);
      return Promise.resolve(fd);
    }
    return new Promise((_resolve, reject) => {
      signal.addEventListener(
        "abort",
        guarded("abort", () => reject(signal.reason)),
        { once: true },
      );
    });
  }

  expect(id: FileId): void {
    this.kept.add(`inode://${id.dev}/${id.ino}`);
  }

  release(id: FileId): void {
    const key = `inode://${id.dev}/${id.ino}`;
    this.released.push(key);
    this.kept.delete(key);
  }
}

/** A peer of the trust domain `test`. */
export function peerNamed(name: string): PeerIdentity {
  const valid = { notBeforeMs: 0, notAfterMs: Number.MAX_SAFE_INTEGER };
  return { spiffeId: `spiffe://test/${name}`, certificatePem: name, ...valid };
}

/** A connection with a peer that carries these descriptors. */
export function connectionWith(peer: PeerIdentity | undefined, facts: Partial<PaperConnection> = {}): PeerConnection {
  const { fds, shown, renew = () => false } = facts;
  const closed = new AbortController().signal;
  return { id: "1", peer, fds: fds as PeerConnection["fds"], remote: "paper", shown, closed, renew };
}

interface PaperConnection extends Pick<PeerConnection, "shown" | "renew"> {
  readonly fds: unknown;
}

/** A call over it. */
export function callOver(connection: PeerConnection, facts: Partial<Call> = {}): Call {
  const { signal } = new AbortController();
  const answer = { setResponseMetadata() {}, sendFd() {} };
  return { connection, signal, deadlineMs: undefined, metadata: new Map(), ...answer, ...facts };
}

/** A token that can be read, and that is not signed. */
export function paperToken(sub: string, aud: string, expiresMs: number): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "ES256", typ: "JWT" })}.${part({ sub, aud: [aud], exp: expiresMs / 1000 })}.AAAA`;
}

/** Who lets callers in whose token has not expired. */
export function paperGate(clock: Clock, lifetimeMs = 600_000): Pick<Gate, "issueToken" | "checkPath"> {
  return {
    issueToken(audience) {
      const expiresMs = clock.now() + lifetimeMs;
      return { token: paperToken("fwd", audience.spiffeId, expiresMs), expiresMs };
    },
    checkPath({ segments, index, nowMs }) {
      const { expMs } = decodeToken(segments[index - 1]?.token ?? "");
      if (!(expMs > nowMs)) throw new Error("no sufficient privileges");
    },
  };
}

/** The manager as a caller of ours. */
export class Manager {
  readonly peer: PeerIdentity;
  readonly fds = new PaperFds();
  readonly #clock: Clock;

  constructor(clock: Clock, name = "nsmgr-a") {
    this.#clock = clock;
    this.peer = peerNamed(name);
  }

  get connection(): PeerConnection {
    return connectionWith(this.peer, { fds: this.fds });
  }

  call(options: { readonly signal?: AbortSignal; readonly deadlineMs?: number; readonly tokenMs?: number } = {}): Call {
    const { tokenMs = 600_000, ...facts } = options;
    const expiresMs = this.#clock.now() + tokenMs;
    const headers = tokenHeaders({ token: paperToken(this.peer.spiffeId, "fwd", expiresMs), expiresMs });
    return callOver(this.connection, {
      ...facts,
      metadata: new Map(Object.entries(headers).map(([key, value]) => [key, [value]])),
    });
  }
}

type ConnectionInit = Omit<MessageInitShape<typeof ConnectionSchema>, "$typeName">;

export const NETNS = "inode://4/4026533012";
export const TOKEN = "sriov-01234567-89ab-cdef-0123-456789abcdef";

/** A first Request for a kernel interface, as a manager sends it. */
export function kernelRequest(overrides: ConnectionInit = {}, id = "m1"): NetworkServiceRequest {
  return create(NetworkServiceRequestSchema, {
    connection: {
      id,
      networkService: "ns1",
      labels: { app: "x" },
      path: {
        index: 1,
        pathSegments: [
          { name: "client", id: "c1", token: "c>m@1" },
          { name: "nsmgr", id },
        ],
      },
      ...(overrides as object),
    },
    mechanismPreferences: [
      { cls: "LOCAL", type: "KERNEL", parameters: { inodeURL: NETNS, name: "nsm-1", tokenID: TOKEN } },
    ],
  });
}

/** The Request that a manager sends to keep what was answered. */
export function refreshOf(answer: Connection): NetworkServiceRequest {
  return create(NetworkServiceRequestSchema, {
    connection: clone(ConnectionSchema, answer),
    mechanismPreferences: kernelRequest().mechanismPreferences,
  });
}

/** As the manager sends it on for this client, which has replaced the first token by its own: nsm-protocol §2.3. */
export function behalfOf(client: string, message: NetworkServiceRequest): NetworkServiceRequest {
  const [first] = message.connection?.path?.pathSegments ?? [];
  if (first) first.token = paperToken(client, "spiffe://test/nsmgr-a", 2e12);
  return message;
}

/** A VF that writes down what is done to it. */
export class PaperVf {
  readonly address = "0000:3b:02.1";
  readonly done: string[] = [];
  /** Steps that fail, by name, until removed. */
  readonly failing = new Map<string, Error>();
  /** The client's namespace that was known at the last `detach`. */
  detachedFrom: OwnedFd | undefined;
  /** With a client, as far as can be known: a step that failed may have moved it. */
  isAway = false;
  #inForce = "";

  async attach(name: string, spec: string): Promise<void> {
    this.isAway = true;
    await this.do(`attach ${name}`);
    this.#inForce = spec;
  }

  async isInForce(spec: string): Promise<boolean> {
    const failure = this.failing.get("stands");
    if (failure) throw failure;
    return spec === this.#inForce;
  }

  async detach(netns?: OwnedFd): Promise<void> {
    this.detachedFrom = netns;
    await this.do("detach");
    this.isAway = false;
    this.#inForce = "";
  }

  async do(step: string): Promise<void> {
    await Promise.resolve();
    const failure = this.failing.get(step.split(" ")[0] ?? "");
    this.done.push(failure ? `${step} fails` : step);
    if (failure) throw failure;
  }
}

/** KERNEL with one VF for every token; one connection at a time has it. */
export class PaperVfs implements MechanismDriver<DesiredKernel> {
  readonly vf = new PaperVf();
  /** Id of the connection that has it. */
  holder: string | undefined;

  open = async (request: MechanismRequest<DesiredKernel>) => this.adopt(request);

  adopt({ connectionId, desired }: MechanismRequest<DesiredKernel>): Attachment<DesiredKernel> {
    if (this.holder !== undefined && this.holder !== connectionId) {
      throw new InventoryError({ kind: "token-in-use", connectionId: this.holder });
    }
    this.holder = connectionId;
    this.vf.done.push("take");
    return new PaperAttachment(this, desired);
  }
}

class PaperAttachment implements Attachment<DesiredKernel> {
  readonly parameters: Readonly<Record<string, string>>;
  readonly #vfs: PaperVfs;
  #desired: DesiredKernel;
  #netns: OwnedFd | undefined;
  #where: string | undefined;
  #isReleased = false;

  constructor(vfs: PaperVfs, desired: DesiredKernel) {
    this.#vfs = vfs;
    this.#desired = desired;
    this.parameters = { [PARAMETER.pciAddress]: vfs.vf.address };
  }

  async prepare({ desired, files, signal }: MechanismRequest<DesiredKernel>): Promise<void> {
    const receiving = { run: () => files.receive(desired.netns, signal), drop: (fd: OwnedFd) => fd.close() };
    [this.#netns] = await both(signal, receiving, { run: () => this.#vfs.vf.do("bind") });
  }

  canServe(desired: DesiredMechanism): boolean {
    return desired.type === "KERNEL" && desired.tokenId === this.#desired.tokenId && !this.#isReleased;
  }

  async apply(
    { desired, files, signal }: MechanismRequest<DesiredKernel>,
    context: ConnectionContext | undefined,
  ): Promise<void> {
    const { netns } = desired;
    if (this.#where !== undefined && this.#where !== netns.text) {
      const former = this.#netns;
      this.#netns = await files.receive(netns, signal);
      former?.close();
      await this.#vfs.vf.detach();
    }
    this.#netns ??= await files.receive(netns, signal);
    this.#where = netns.text;
    await this.#vfs.vf.attach(desired.interfaceName, specText(desired, context));
    this.#desired = desired;
  }

  isInForce(context: ConnectionContext | undefined): Promise<boolean> {
    return this.#vfs.vf.isInForce(specText(this.#desired, context));
  }

  async receiveFiles(files: PassedFilesOfCall, signal: AbortSignal): Promise<void> {
    if (!this.#isReleased) this.#netns ??= await files.receive(this.#desired.netns, signal);
  }

  async release(): Promise<void> {
    if (this.#isReleased) return;
    await this.#vfs.vf.detach(this.#netns);
    this.#netns?.close();
    this.#netns = undefined;
    await this.#vfs.vf.do("give-back");
    this.#vfs.holder = undefined;
    this.#isReleased = true;
  }

  close(): void {
    this.#vfs.vf.done.push("close");
    this.#netns?.close();
    this.#netns = undefined;
  }
}

/** NOOP: nothing. */
export const paperNoop: MechanismDriver<DesiredNoop> = { open: async () => paperNothing, adopt: () => paperNothing };

/** VFIO: nothing either. */
export const paperVfio: MechanismDriver<DesiredVfio> = {
  open: async () => ({ ...paperNothing, canServe: ({ type }) => type === "VFIO" }),
  adopt: () => paperNothing,
};

const paperNothing: Attachment = {
  parameters: {},
  async prepare() {},
  canServe: ({ type }) => type === "NOOP",
  async apply() {},
  isInForce: async () => true,
  async receiveFiles() {},
  async release() {},
  close() {},
};

function specText({ interfaceName, bare }: DesiredKernel, context: ConnectionContext | undefined): string {
  return JSON.stringify([interfaceName, bare, context && toJson(ConnectionContextSchema, context)]);
}
