// Attackers that are endpoints: what the forwarder calls, watches or finds in the registry.
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { constants, createSecureServer, type ServerHttp2Stream } from "node:http2";
import { createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type Connection,
  ConnectionEventSchema,
  ConnectionEventType,
  ConnectionSchema,
  State,
} from "../../../src/gen/connection_pb.ts";
import { NetworkServiceRequestSchema } from "../../../src/gen/networkservice_pb.ts";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../../src/gen/registry_pb.ts";
import { manyParts } from "../../scenes/many-parts.ts";
import { requestBytes } from "./messages.ts";
import {
  aborted,
  beginCall,
  doorOf,
  firstOf,
  framed,
  lastMoment,
  METHODS,
  openSession,
  repeatedly,
  statusOf,
  tally,
  tokenHeaders,
  tokenOf,
} from "./session.ts";
import { type Attacker, EVIL, type Identity, type Target } from "./target.ts";

const EMPTY_PATH = JSON.stringify({ Index: 0, PathSegments: null });

type Answer = (stream: ServerHttp2Stream, path: string, message: Buffer) => void;

/** Listens as an endpoint; resolves with its URL. */
async function listen({ certPem: cert, keyPem: key }: Identity, answer: Answer): Promise<string> {
  const server = createSecureServer({
    cert,
    key,
    requestCert: true,
    rejectUnauthorized: false,
    maxSessionMemory: 1000,
  });
  server.on("sessionError", () => {}).on("error", () => {});
  server.on("stream", (stream, headers) => {
    stream.on("error", () => {});
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      const all = Buffer.concat(chunks);
      if (all.length < 5 || all.length < 5 + all.readUInt32BE(1)) return;
      chunks.length = 0;
      answer(stream, String(headers[":path"]), all.subarray(5));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return `tcp://127.0.0.1:${(server.address() as { port: number }).port}`;
}

/** Registers services and endpoints at the manager, as any peer may. */
async function register(
  target: Target,
  identity: Identity,
  entries: readonly { readonly name: string; readonly url: string; readonly service: string }[],
): Promise<readonly string[]> {
  const session = await openSession(target.manager, identity);
  if (!session) return ["lost"];
  const headers = { ...tokenHeaders(identity, target.manager), path: EMPTY_PATH };
  const services = new Set(entries.map(({ service }) => service).filter((service) => service !== target.service));
  for (const name of services) {
    const service = create(NetworkServiceSchema, { name, payload: "ETHERNET" });
    await statusOf(session, METHODS.registerService, toBinary(NetworkServiceSchema, service), headers);
  }
  const answers = entries.map(({ name, url, service }) => {
    const entry = create(NetworkServiceEndpointSchema, { name, url, networkServiceNames: [service] });
    return statusOf(session, METHODS.registerEndpoint, toBinary(NetworkServiceEndpointSchema, entry), headers);
  });
  return await Promise.all(answers);
}

const TRAILERS = { "grpc-status": "0" };

function reply(stream: ServerHttp2Stream, message: Uint8Array): void {
  stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers(TRAILERS));
  stream.end(framed(message));
}

/** The answer of an endpoint that agrees. */
function agreed(target: Target, identity: Identity, message: Buffer): Connection | undefined {
  const { connection, mechanismPreferences } = fromBinary(NetworkServiceRequestSchema, message);
  if (!connection?.path) return undefined;
  const { token } = tokenOf(identity, target.forwarder.spiffeId);
  const { index, pathSegments } = connection.path;
  const own = pathSegments[index + 1];
  const expires = {
    $typeName: "google.protobuf.Timestamp",
    seconds: BigInt(Math.floor(Date.now() / 1000) + 10),
    nanos: 0,
  } as const;
  const segment = {
    $typeName: "connection.PathSegment",
    name: "evil-nse",
    id: own?.id || randomUUID(),
    token,
    expires,
  } as const;
  pathSegments.splice(index + 1, pathSegments.length, { ...segment, metrics: {} } as never);
  const mechanism = connection.mechanism ?? mechanismPreferences[0];
  if (mechanism) connection.mechanism = mechanism;
  connection.payload = "ETHERNET";
  connection.state = State.UP;
  return connection;
}

/** A connection to an endpoint that then reports a change of it as fast as the stream takes it. */
export const updateStorm: Attacker = async (target, signal) => {
  const identity = firstOf(target.identities);
  const known = new Map<string, Connection>();
  let sent = 0;
  const storm = (stream: ServerHttp2Stream) => {
    stream.respond({ ":status": 200, "content-type": "application/grpc" });
    const send = () => {
      while (!signal.aborted && !stream.destroyed) {
        sent += 1;
        const connections = Object.fromEntries(
          [...known].map(([id, one]) => [id, { ...one, state: sent % 2 === 0 ? State.UP : State.DOWN }]),
        );
        const event = create(ConnectionEventSchema, { type: ConnectionEventType.UPDATE, connections });
        if (!stream.write(framed(toBinary(ConnectionEventSchema, event)))) break;
      }
    };
    stream.on("drain", send);
    send();
  };
  const url = await listen(identity, (stream, path, message) => {
    if (path === METHODS.monitor) return storm(stream);
    if (path !== METHODS.request) return reply(stream, new Uint8Array());
    const connection = agreed(target, identity, message);
    if (!connection) return stream.close();
    const own = connection.path?.pathSegments[connection.path.index + 1];
    known.set(own?.id ?? "", { ...connection, id: own?.id ?? "" });
    reply(stream, toBinary(ConnectionSchema, connection));
  });
  const registered = await register(target, identity, [{ name: "evil-nse", url, service: "evil-service" }]);
  const session = await openSession(doorOf(target), identity);
  const statuses: string[] = [];
  for (let at = 0; session && at < 8; at += 1) {
    const message = requestBytes(target, identity, { service: "evil-service", endpoint: "evil-nse" });
    statuses.push(await statusOf(session, METHODS.request, message, tokenHeaders(identity, doorOf(target))));
  }
  await aborted(signal);
  return `registered ${tally(registered)}, requests ${tally(statuses)}, ${sent} updates`;
};

/** Endpoints that take a call and never answer, asked by as many Requests as there may be. */
export const muteEndpoint: Attacker = async (target, signal) => {
  const identity = firstOf(target.identities);
  let heard = 0;
  const url = await listen(identity, () => {
    heard += 1;
  });
  await register(target, identity, [{ name: `${EVIL}-mute`, url, service: "mute-service" }]);
  const session = await openSession(doorOf(target), identity);
  const request = async () => {
    const message = requestBytes(target, identity, { service: "mute-service" });
    return session ? await statusOf(session, METHODS.request, message, tokenHeaders(identity, doorOf(target))) : "lost";
  };
  void repeatedly(target, signal, { atOnce: 200, act: request });
  await aborted(signal);
  await untilHeard(target, () => heard > 0);
  return `${heard} heard`;
};

const HANGING = 500;

/**
 * Endpoints at as many addresses, which take a connection and say nothing: each dial hangs in its handshake. By then who has requested it
 * gives up, and names the next one.
 */
export const hangingEndpoints: Attacker = async (target, signal) => {
  const identity = firstOf(target.identities);
  const dialled: string[] = [];
  const waiting = new Map<string, () => void>();
  const server = createServer((socket) => {
    const { localAddress = "" } = socket.on("error", () => {}).resume();
    dialled.push(localAddress);
    waiting.get(localAddress)?.();
  });
  server.listen(0, "0.0.0.0");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  const addressOf = (at: number) => `127.1.${Math.floor(at / 250)}.${1 + (at % 250)}`;
  const entries = Array.from({ length: HANGING }, (_, at) => ({
    name: `${EVIL}-${at}`,
    url: `tcp://${addressOf(at)}:${port}`,
    service: "hanging-service",
  }));
  const registered = await register(target, identity, entries);
  const session = await openSession(doorOf(target), identity);
  const act = async (nth: number) => {
    const at = nth % HANGING;
    const message = requestBytes(target, identity, { service: "hanging-service", endpoint: `${EVIL}-${at}` });
    if (!session || session.destroyed || session.closed) return "lost";
    const stream = beginCall(session, METHODS.request, tokenHeaders(identity, doorOf(target))).resume();
    stream.end(framed(message));
    const isDialled = new Promise<void>((resolve) => waiting.set(addressOf(at), resolve));
    await Promise.race([isDialled, once(stream, "close")]);
    stream.close(constants.NGHTTP2_CANCEL);
    return "given up";
  };
  const answers = await repeatedly(target, signal, { atOnce: 14, act });
  return `registered ${tally(registered)}, ${dialled.length} dialled, ${tally(answers)}`;
};

/** On a busy machine an attack may need more than its time to begin. */
async function untilHeard(target: Target, isHeard: () => boolean): Promise<void> {
  const limit = lastMoment(target);
  while (!isHeard() && !limit.aborted) await sleep(20);
}

/** Calls under way that hold as much as is allowed: at an endpoint that never answers, and eight for each connection that wait for those. */
export const largeMuteRequests: Attacker = async (target, signal) => {
  const { identities } = target;
  let heard = 0;
  const url = await listen(firstOf(identities), () => {
    heard += 1;
  });
  await register(target, firstOf(identities), [{ name: `${EVIL}-mute`, url, service: "mute-service" }]);
  const prepared = await Promise.all(
    identities.map(async (identity) => ({
      session: await openSession(doorOf(target), identity),
      headers: tokenHeaders(identity, doorOf(target)),
      messages: Array.from({ length: 16 }, () =>
        requestBytes(target, identity, { service: "mute-service", alter: manyParts }),
      ),
    })),
  );
  const act = async (at: number) => {
    const { session, headers, messages } = prepared[at % identities.length] ?? firstOf(prepared);
    const message = messages[Math.floor(at / identities.length) % messages.length] ?? firstOf(messages);
    return session ? await statusOf(session, METHODS.request, message, headers) : "lost";
  };
  const answers = repeatedly(target, signal, { atOnce: 9 * 16 * identities.length, act });
  await Promise.race([answers, aborted(signal)]);
  await untilHeard(target, () => heard > 0);
  return `${heard} heard`;
};

/** Endpoints of the victims' own service: some at whose port none listens, some that take a call and never answer. */
export const bogusEndpoints: Attacker = async (target, signal) => {
  const identity = firstOf(target.identities);
  const url = await listen(identity, () => {});
  const entries = Array.from({ length: 40 }, (_, at) => ({
    name: `${EVIL}-${at}`,
    url: at % 2 === 0 ? url : "tcp://127.0.0.1:9",
    service: target.service,
  }));
  const registered = await register(target, identity, entries);
  await aborted(signal);
  return `registered ${tally(registered)}`;
};
