// Attacks on the forwarder's process, as it runs in production: it lives, and other pods are served.
import assert from "node:assert/strict";
import { once } from "node:events";
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { createConnection } from "node:net";
import { after, describe, test } from "node:test";
import { connect as connectTls } from "node:tls";
import { connectUnix } from "../../src/kernel/index.ts";
import { needs } from "../needs.ts";
import { AttackScene, deadDescriptor } from "./attack-scene.ts";

let opening: Promise<AttackScene> | undefined;

function attack(name: string, run: (scene: AttackScene) => Promise<void>): void {
  test(name, { timeout: 120_000 }, async (t) => {
    if (!needs(t, "netns", "veth", "bridge")) return;
    opening ??= AttackScene.open();
    const scene = await opening;
    await run(scene);
    await scene.serves();
  });
}

describe("the forwarder's process lives and serves others when", () => {
  after(async () => (await opening)?.stop());

  attack("somebody without an identity passes a descriptor at which nobody can look", async (scene) => {
    const dead = await deadDescriptor();
    try {
      assert.throws(() => dead.id(), { code: "ENOENT" });
      const stream = connectUnix(scene.path);
      stream.on("error", () => {});
      stream.fds.send(dead);
      stream.write("x");
      await scene.serves();
      stream.destroy();
      await once(stream, "close");
    } finally {
      dead.close();
    }
  });

  attack("an endpoint that we call passes such a descriptor", async (scene) => {
    const dead = await deadDescriptor();
    const { knobs } = scene.sandbox.endpoint;
    knobs.fds = [dead];
    try {
      await scene.serves();
    } finally {
      knobs.fds = [];
      dead.close();
    }
  });

  attack("a peer sends Requests of 4 MB of empty elements", async (scene) => {
    const session = sessionOf(scene);
    const answers = [1, 2, 3].map(() => answerTo(session, REQUEST, "1200".repeat(2_000_000)));
    assert.deepEqual(await Promise.all(answers), ["8", "8", "8"]);
    session.destroy();
  });

  attack("a peer sends many Requests that are as long as they may be, of empty elements", async (scene) => {
    const session = sessionOf(scene);
    const answers = Array.from({ length: 100 }, () => answerTo(session, REQUEST, "1200".repeat(130_000)));
    assert.deepEqual(new Set(await Promise.all(answers)), new Set(["8"]));
    session.destroy();
    assert.ok(scene.peakRssMb < MEMORY_LIMIT_MB, `${scene.peakRssMb} MB`);
  });

  attack("somebody without an identity sends probes of 4 MB of unknown fields to the admin port", async (scene) => {
    const session = connectHttp2(scene.adminUrl).on("error", () => {});
    const answers = [1, 2, 3].map(() => answerTo(session, "/grpc.health.v1.Health/Check", "f80101".repeat(1_300_000)));
    assert.deepEqual(await Promise.all(answers), ["8", "8", "8"]);
    session.destroy();
    assert.ok(scene.peakRssMb < MEMORY_LIMIT_MB, `${scene.peakRssMb} MB`);
  });
});

/** resources.limits.memory of the manifests. */
const MEMORY_LIMIT_MB = 256;

const REQUEST = "/networkservice.NetworkService/Request";

/** A session of a peer with an identity, which says what our own client never would. */
function sessionOf(scene: AttackScene): ClientHttp2Session {
  const { certChainPem: cert, keyPem: key } = scene.sandbox.actor("ns/default/pod/evil").tls.credentials();
  const socket = createConnection(scene.path).on("error", () => {});
  const options = { socket, cert, key, rejectUnauthorized: false, ALPNProtocols: ["h2"] };
  const createConnectionTo = () => connectTls(options).on("error", () => {});
  return connectHttp2("https://localhost", { createConnection: createConnectionTo }).on("error", () => {});
}

/** The gRPC status of a call with that message, in hexadecimal; "lost" when the connection is. */
function answerTo(session: ClientHttp2Session, path: string, hex: string): Promise<string> {
  const message = Buffer.from(hex, "hex");
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  const stream = session.request({ ":method": "POST", ":path": path, "content-type": "application/grpc" });
  stream.on("error", () => {}).resume();
  stream.end(Buffer.concat([prefix, message]));
  return new Promise((resolve) => {
    const seen = (fields: Record<string, unknown>) => {
      if (fields["grpc-status"] !== undefined) resolve(String(fields["grpc-status"]));
    };
    stream.on("response", seen).on("trailers", seen);
    stream.once("close", () => resolve("lost"));
  });
}
