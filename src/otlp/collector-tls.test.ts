// A collector over TLS, on a gRPC server that is not ours: whom we believe, and what we show.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import * as grpc from "@grpc/grpc-js";
import { createTestCa } from "../../sandbox/identity/x509.ts";
import { type Clock, systemClock } from "../async/index.ts";
import { createMetrics } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { OtlpExporter } from "./exporter.ts";
import { otlpSettings } from "./settings.ts";

const ca = createTestCa("collector");
const issue = (hosts: readonly string[]) => ca.issue({ spiffeId: "spiffe://collector/c", uris: [], hosts });
const scope = { name: "fwd", version: "1" };
/** No limit comes: a handshake on a busy machine takes longer than the last call may. */
const clock: Clock = { ...systemClock, after: () => ({ cancel() {} }) };

/** A collector; `wantsClient` demands a certificate of its authority. */
async function collector(t: TestContext, host: string, wantsClient = false) {
  const { certPem, keyPem } = issue([host]);
  const server = new grpc.Server();
  const seen: grpc.Metadata[] = [];
  const echo = (bytes: Buffer) => bytes;
  const method = {
    requestStream: false,
    responseStream: false,
    requestSerialize: echo,
    requestDeserialize: echo,
    responseSerialize: echo,
    responseDeserialize: echo,
  } as const;
  const path = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
  server.addService(
    { export: { ...method, path } },
    {
      export: ({ metadata }: grpc.ServerUnaryCall<Buffer, Buffer>, answer: grpc.sendUnaryData<Buffer>) => {
        seen.push(metadata);
        answer(null, Buffer.alloc(0));
      },
    },
  );
  const pair = { cert_chain: Buffer.from(certPem), private_key: Buffer.from(keyPem) };
  const credentials = grpc.ServerCredentials.createSsl(Buffer.from(ca.rootPem), [pair], wantsClient);
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", credentials, (error, bound) => (error ? reject(error) : resolve(bound))),
  );
  t.after(() => server.forceShutdown());
  return { seen, endpoint: `https://localhost:${port}` };
}

/** Sends metrics once, and says what became of it. */
async function sendOnce(endpoint: string, otel: Record<string, string>) {
  const [metrics, log] = [createMetrics(), recordingLog()];
  const settings = otlpSettings(
    { OTEL_TRACES_EXPORTER: "none", ...otel },
    { endpoint, metricsIntervalMs: 1e6, ...scope },
  );
  await new OtlpExporter({ settings, scope, metrics, clock, log }).stop();
  return log.of("collector-lost").map(({ problem }) => String(problem));
}

function files(t: TestContext): { ca: string; cert: string; key: string } {
  const folder = mkdtempSync(join(tmpdir(), "otlp-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const { certPem, keyPem } = issue([]);
  const write = (name: string, text: string) => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  return { ca: write("ca.pem", ca.rootPem), cert: write("cert.pem", certPem), key: write("key.pem", keyPem) };
}

test("OtlpExporter sends over TLS to a collector of the authority that it is given, with its headers", async (t) => {
  const { endpoint, seen } = await collector(t, "localhost");
  const otel = { OTEL_EXPORTER_OTLP_CERTIFICATE: files(t).ca, OTEL_EXPORTER_OTLP_HEADERS: "x-tenant=a" };
  assert.deepEqual(await sendOnce(endpoint, otel), []);
  assert.deepEqual(
    seen.map((metadata) => metadata.get("x-tenant")),
    [["a"]],
  );
});

test("OtlpExporter believes no collector that the system's authorities do not know", async (t) => {
  const { endpoint, seen } = await collector(t, "localhost");
  assert.match((await sendOnce(endpoint, {})).join(), /TLS handshake failed: .*certificate/);
  assert.deepEqual(seen, []);
});

test("OtlpExporter believes no collector with a certificate for another host", async (t) => {
  const { endpoint, seen } = await collector(t, "elsewhere");
  const problems = await sendOnce(endpoint, { OTEL_EXPORTER_OTLP_CERTIFICATE: files(t).ca });
  assert.match(problems.join(), /TLS handshake failed: .*altnames/);
  assert.deepEqual(seen, []);
});

test("OtlpExporter shows its certificate to a collector that wants one, and says which file it cannot read", async (t) => {
  const { endpoint, seen } = await collector(t, "localhost", true);
  const { ca: roots, cert, key } = files(t);
  const otel = {
    OTEL_EXPORTER_OTLP_CERTIFICATE: roots,
    OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: cert,
    OTEL_EXPORTER_OTLP_CLIENT_KEY: key,
  };
  assert.deepEqual(await sendOnce(endpoint, otel), []);
  assert.equal(seen.length, 1);
  assert.equal((await sendOnce(endpoint, { OTEL_EXPORTER_OTLP_CERTIFICATE: roots })).length, 1);
  const missing = { ...otel, OTEL_EXPORTER_OTLP_CLIENT_KEY: `${key}.gone` };
  assert.match((await sendOnce(endpoint, missing)).join(), /key\.pem\.gone.*ENOENT/);
});
