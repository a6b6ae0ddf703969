// Calls of a peer that is not our client: node:tls and node:http2, and nothing of src/rpc.
import { createPrivateKey } from "node:crypto";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type ClientSessionOptions,
  connect as connectHttp2,
} from "node:http2";
import { createConnection, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { headersOfToken, type PeerToken, signToken } from "../../../sandbox/nsm/peer-token.ts";
import type { Door, Identity, Target } from "./target.ts";

export const METHODS = {
  request: "/networkservice.NetworkService/Request",
  close: "/networkservice.NetworkService/Close",
  monitor: "/connection.MonitorConnection/MonitorConnections",
  check: "/grpc.health.v1.Health/Check",
  watch: "/grpc.health.v1.Health/Watch",
  registerService: "/registry.NetworkServiceRegistry/Register",
  registerEndpoint: "/registry.NetworkServiceEndpointRegistry/Register",
} as const;

/** Whom the target's way leads to. */
export function doorOf(target: Target): Door {
  return target.way === "direct" ? target.forwarder : target.manager;
}

/** The first of them. */
export function firstOf<T>(all: readonly T[]): T {
  const [first] = all;
  if (first === undefined) throw new Error("there is none");
  return first;
}

/** A TLS connection; undefined when the other side ended it before it was one. */
export function secureSocket(
  path: string,
  { certPem: cert, keyPem: key }: Pick<Identity, "certPem" | "keyPem">,
): Promise<TLSSocket | undefined> {
  const socket = createConnection(path).on("error", () => {});
  const secure = connectTls({ socket, cert, key, rejectUnauthorized: false, ALPNProtocols: ["h2"] });
  secure.on("error", () => {});
  return new Promise((resolve) => {
    secure.once("secureConnect", () => resolve(secure));
    secure.once("close", () => resolve(undefined));
    socket.once("close", () => resolve(undefined));
  });
}

/** An HTTP/2 session over it; undefined when it came to none. */
export async function openSession(
  { socket }: Door,
  identity: Identity,
  options: ClientSessionOptions = {},
): Promise<ClientHttp2Session | undefined> {
  const secure = await secureSocket(socket, identity);
  return secure && (await sessionOver(secure, options));
}

export function sessionOver(
  socket: Socket | TLSSocket,
  options: ClientSessionOptions = {},
): Promise<ClientHttp2Session | undefined> {
  const session = connectHttp2("http://localhost", {
    createConnection: () => socket,
    maxSessionMemory: 1000,
    ...options,
  });
  session.on("error", () => {});
  return new Promise((resolve) => {
    session.once("remoteSettings", () => resolve(session));
    session.once("close", () => resolve(undefined));
  });
}

/** The headers of a caller, whose token is good for some seconds. */
export function tokenHeaders(identity: Identity, { spiffeId }: Door): Readonly<Record<string, string>> {
  return headersOfToken(tokenOf(identity, spiffeId));
}

const TOKEN_LIFETIME_MS = 6_000;

export function tokenOf({ spiffeId, keyPem }: Identity, audience: string): PeerToken {
  const expiresMs = Date.now() + TOKEN_LIFETIME_MS;
  return signToken(createPrivateKey(keyPem), { subject: spiffeId, audience, expiresMs });
}

/** A message behind its length. */
export function framed(message: Uint8Array, { announcedBytes = message.length } = {}): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(announcedBytes, 1);
  return Buffer.concat([prefix, message]);
}

/** Begins a call, and says no more than its headers. */
export function beginCall(
  session: ClientHttp2Session,
  method: string,
  headers: Readonly<Record<string, string>> = {},
): ClientHttp2Stream {
  const stream = session.request({
    ":method": "POST",
    ":path": method,
    "content-type": "application/grpc",
    te: "trailers",
    ...headers,
  });
  stream.on("error", () => {});
  return stream;
}

/** The gRPC status of a call with that message; "lost" when there is none. */
export function statusOf(
  session: ClientHttp2Session,
  method: string,
  message: Uint8Array,
  headers: Readonly<Record<string, string>> = {},
): Promise<string> {
  if (session.destroyed || session.closed) return Promise.resolve("lost");
  const stream = beginCall(session, method, headers).resume();
  stream.end(framed(message));
  return new Promise((resolve) => {
    const seen = (fields: Record<string, unknown>) => {
      const { "grpc-status": status, "grpc-message": why } = fields;
      if (status === undefined) return;
      if (why !== undefined) lastReasons.set(String(status), String(why));
      resolve(String(status));
    };
    stream.on("response", seen).on("trailers", seen);
    stream.once("close", () => resolve("lost"));
  });
}

/** The last reason that came with each status. */
const lastReasons = new Map<string, string>();

/** `3 × 0, 5 × lost` */
export function tally(answers: Iterable<string>): string {
  const counts = Map.groupBy(answers, (answer) => answer);
  const one = ([answer, all]: readonly [string, readonly string[]]) => {
    const why = lastReasons.get(answer);
    return `${all.length} × ${answer}${why === undefined ? "" : ` (${decodeURIComponent(why).slice(0, 120)})`}`;
  };
  return [...counts].map(one).join(", ");
}

export function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

/** A busy machine may give an attacker so many times its seconds. */
const PATIENCE = 4;

/** Ends what is not done yet although the machine was given its time. */
export function lastMoment({ seconds }: Target): AbortSignal {
  return AbortSignal.timeout(seconds * PATIENCE * 1000);
}

/** Does it again and again, so many at a time, until the signal and until each has been done once. */
export async function repeatedly(
  target: Target,
  signal: AbortSignal,
  { atOnce, act }: { readonly atOnce: number; readonly act: (at: number) => Promise<string> },
): Promise<readonly string[]> {
  const answers: string[] = [];
  let next = 0;
  const isOver = () => signal.aborted && answers.length >= atOnce;
  const work = async () => {
    while (!isOver()) {
      const at = next;
      next += 1;
      const answer = await act(at);
      if (answer === "lost") await new Promise((resolve) => setTimeout(resolve, 20));
      answers.push(answer);
    }
  };
  const limit = aborted(lastMoment(target));
  const enough = aborted(signal).then(async () => {
    while (!isOver()) await new Promise((resolve) => setTimeout(resolve, 20));
  });
  await Promise.race([Promise.all(Array.from({ length: atOnce }, work)), enough, limit]);
  return answers;
}
