// Who may use the admin listener: health probes on this node, and from elsewhere only our own trust domain.
import assert from "node:assert/strict";
import { request } from "node:https";
import { type TestContext, test } from "node:test";
import { credentials, makeGenericClientConstructor } from "@grpc/grpc-js";
import { Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";
import { until } from "../scenes/until.ts";

async function started(t: TestContext, host: string) {
  const log = recordingLog();
  const settings = { adminListenOn: { host, port: 0 } };
  const sandbox = await Sandbox.start({ settings, log, clock: systemClock });
  t.after(() => sandbox.stop());
  const forwarder = await sandbox.startForwarder();
  return { sandbox, forwarder, log, url: new URL(forwarder.adminUrl ?? assert.fail("there is no admin listener")) };
}

/** What `grpc_health_probe -addr … -service …` does, as bytes: HealthCheckRequest{1: service}, HealthCheckResponse{1: status}. */
function probe(t: TestContext, target: string): (service: string) => Promise<"SERVING" | "NOT_SERVING"> {
  const Client = makeGenericClientConstructor({}, "probe");
  const client = new Client(target, credentials.createInsecure());
  t.after(() => client.close());
  return async (service) => {
    const message = service === "" ? Buffer.alloc(0) : Buffer.from([0x0a, service.length, ...Buffer.from(service)]);
    const answer = await new Promise<Buffer>((resolve, reject) => {
      const same = (bytes: Buffer) => bytes;
      client.makeUnaryRequest("/grpc.health.v1.Health/Check", same, same, message, (error, bytes) =>
        error ? reject(error) : resolve(bytes ?? Buffer.alloc(0)),
      );
    });
    return answer[1] === 1 ? "SERVING" : "NOT_SERVING";
  };
}

test("a gRPC health probe is answered beside HTTP: ready as long as nothing blocks, alive all the while", async (t) => {
  const { forwarder, url } = await started(t, "127.0.0.1");
  const query = probe(t, url.host);
  assert.deepEqual(
    [await query(""), await query("readiness"), await query("liveness")],
    ["SERVING", "SERVING", "SERVING"],
  );
  const broken = forwarder.health.condition("journal-not-written", "No space left");
  assert.deepEqual([await query(""), await query("liveness")], ["NOT_SERVING", "SERVING"]);
  broken.clear();
  assert.equal(await query("readiness"), "SERVING");
  await assert.rejects(query("another"), /NOT_FOUND/);
  assert.equal((await fetch(new URL("/healthz", url), { headers: { connection: "close" } })).status, 200);
});

type Certificate = { readonly cert: string; readonly key: string };

/** The code of the answer and its text; rejects when the connection is refused. */
function get(url: URL, certificate: Partial<Certificate>): Promise<readonly [code: number | undefined, text: string]> {
  return new Promise((resolve, reject) => {
    // The server's certificate is an SVID, which names no host: whom the caller trusts is not looked at here.
    const message = request(url, { ...certificate, rejectUnauthorized: false, agent: false }, (answer) => {
      let text = "";
      answer.on("data", (piece) => {
        text += piece;
      });
      answer.on("end", () => resolve([answer.statusCode, text]));
    });
    message.on("error", reject).end();
  });
}

test("off loopback only an SVID of our trust domain is let in, and gRPC is not served", async (t) => {
  const { sandbox, log, url } = await started(t, "0.0.0.0");
  assert.equal(url.protocol, "https:");
  url.hostname = "127.0.0.1";
  const certificateOf = (spiffeId: string): Certificate => {
    const { certPem: cert, keyPem: key } = sandbox.spire.svid(spiffeId);
    return { cert, key };
  };
  const readyz = new URL("/readyz", url);
  assert.deepEqual(await get(readyz, certificateOf(sandbox.spire.idOf("prometheus"))), [200, "ready\n"]);

  await assert.rejects(get(readyz, {}));
  sandbox.spire.federate("elsewhere.test");
  // From here on the forwarder talks NSM with peers of the other domain.
  await until("the other domain is trusted", () => log.of("trust-bundles-changed").length > 0);
  await assert.rejects(get(readyz, certificateOf("spiffe://elsewhere.test/prometheus")));
  const said = () => log.of("admin-connection-refused").map(({ error }) => String(error));
  assert.ok(
    said().length === 2 && said()[0]?.includes("no certificate") && said()[1]?.includes("not of our trust domain"),
    said().join("; "),
  );
  await assert.rejects(probe(t, url.host)(""), /UNAVAILABLE/);
  await assert.rejects(fetch(`http://${readyz.host}/readyz`));
});
