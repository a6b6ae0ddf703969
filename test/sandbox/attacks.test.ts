// Attacks on the forwarder's process, as it runs in production: it lives, and other pods are served.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { createConnection } from "node:net";
import { after, describe, test } from "node:test";
import { connect as connectTls } from "node:tls";
import { systemClock } from "../../src/async/index.ts";
import { connectUnix } from "../../src/kernel/index.ts";
import { needs } from "../needs.ts";
import { AttackScene, deadDescriptor } from "./scenes/attack-scene.ts";
import { SharedUntilFailure } from "./scenes/fresh-after-failure.ts";

const shared = new SharedUntilFailure(
  () => AttackScene.open(),
  (scene) => scene.stop(),
);

function attack(name: string, run: (scene: AttackScene) => Promise<void>): void {
  test(name, async (t) => {
    if (!needs(t, "netns", "veth", "bridge")) return;
    await shared.run(async (scene) => {
      await run(scene);
      await scene.serves();
    });
  });
}

describe("the forwarder's process lives and serves others when", () => {
  after(() => shared.close());

  attack("a peer without an identity passes a descriptor that cannot be read", async (scene) => {
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

  attack("a peer without an identity sends probes of 4 MB of unknown fields to the admin port", async (scene) => {
    const session = connectHttp2(scene.adminUrl, { maxSessionMemory: 1000 }).on("error", () => {});
    const answers = [1, 2, 3].map(() => answerTo(session, "/grpc.health.v1.Health/Check", "f80101".repeat(1_300_000)));
    assert.deepEqual(await Promise.all(answers), ["8", "8", "8"]);
    session.destroy();
    assert.ok(scene.peakRssMb < MEMORY_LIMIT_MB, `${scene.peakRssMb} MB`);
  });

  for (const [says, bytes] of [
    ["nothing", ""],
    ["the first byte of TLS", "16"],
  ] as const) {
    attack(`a peer connects 500 times a second and sends ${says}`, (scene) => flood(scene, bytes));
  }

  attack("a peer holds as many connections as it can, with calls on each", holdMany);
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
  return connectHttp2("https://localhost", { createConnection: createConnectionTo, maxSessionMemory: 1000 }).on(
    "error",
    () => {},
  );
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

/** Half-open connections: as many as a process of its own makes in six seconds. */
async function flood(scene: AttackScene, bytes: string): Promise<void> {
  const before = scene.openFds;
  const program = `
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
held = []
began = time.monotonic()
for n in range(3000):
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); held.append(s)
    try: s.send(bytes.fromhex(sys.argv[2]))
    except OSError: pass
    time.sleep(max(0, began + n / 500 - time.monotonic()))
`;
  const flooding = spawn("python3", ["-c", program, scene.path, bytes], { stdio: ["ignore", "ignore", "inherit"] });
  const ended = once(flooding, "exit");
  const isFlooding = () => flooding.exitCode === null && flooding.signalCode === null;
  let most = 0;
  const counting = (async () => {
    for (; isFlooding(); await systemClock.sleep(20)) most = Math.max(most, scene.openFds);
  })();
  try {
    while (isFlooding()) await scene.serves();
  } finally {
    flooding.kill();
    await counting;
  }
  assert.deepEqual(await ended, [0, null]);
  assert.ok(most > before && most < before + 128 + 64, `${before} descriptors before, ${most} meanwhile`);
  assert.ok(scene.peakRssMb < MEMORY_LIMIT_MB, `${scene.peakRssMb} MB`);
}

async function holdMany(scene: AttackScene): Promise<void> {
  const sessions = Array.from({ length: 300 }, () => sessionOf(scene));
  const isOpen = sessions.map(
    (session) => new Promise((resolve) => session.once("remoteSettings", resolve).once("close", resolve)),
  );
  for (const session of sessions) {
    const headers = { ":method": "POST", ":path": REQUEST, "content-type": "application/grpc" };
    for (let at = 0; at < 4; at += 1) {
      const half = Buffer.alloc(100_000);
      half.writeUInt32BE(200_000, 1);
      session
        .request(headers)
        .on("error", () => {})
        .resume()
        .write(half);
    }
  }
  await Promise.all(isOpen);
  await scene.serves();
  for (const session of sessions) session.destroy();
  assert.ok(scene.peakRssMb < MEMORY_LIMIT_MB, `${scene.peakRssMb} MB`);
}
