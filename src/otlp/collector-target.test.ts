import assert from "node:assert/strict";
import { test } from "node:test";
import { parseCollectorTarget } from "./collector-target.ts";

const rows: readonly (readonly [text: string, target: string, name: string, isTls?: boolean])[] = [
  [
    "otel-collector.observability.svc:4317",
    "tcp://otel-collector.observability.svc:4317",
    "otel-collector.observability.svc",
  ],
  ["collector", "tcp://collector:443", "collector"],
  [":4317", "tcp://localhost:4317", "localhost"],
  ["[::1]:4317", "tcp://[::1]:4317", "::1"],
  ["127.0.0.1:4317", "tcp://127.0.0.1:4317", "127.0.0.1"],
  ["dns:///collector:4317", "tcp://collector:4317", "collector"],
  ["dns:collector:4317", "tcp://collector:4317", "collector"],
  ["dns:///collector", "tcp://collector:443", "collector"],
  ["DNS:///collector:1", "tcp://collector:1", "collector"],
  ["passthrough:///collector:4317", "tcp://collector:4317", "collector"],
  ["passthrough:collector:4317", "tcp://collector:4317", "collector"],
  ["ipv4:10.0.0.1:4317,10.0.0.2:4317", "tcp://10.0.0.1:4317", "10.0.0.1"],
  ["ipv6:[::1]:4317", "tcp://[::1]:4317", "::1"],
  ["unix:/run/otel.sock", "unix:///run/otel.sock", "localhost"],
  ["unix:///run/otel.sock", "unix:///run/otel.sock", "localhost"],
  ["unix:otel.sock", `unix://${process.cwd()}/otel.sock`, "localhost"],
  ["http://collector:4317", "tcp://collector:4317", "collector", false],
  ["http://collector/v1/traces", "tcp://collector:4317", "collector", false],
  ["https://[::1]:4317/", "tcp://[::1]:4317", "::1", true],
];
for (const [text, target, name, isTls] of rows) {
  test(`parseCollectorTarget() reads ${text}`, () =>
    assert.deepEqual(parseCollectorTarget(text), { target, name, isTls }));
}

test("parseCollectorTarget() asks this machine's name servers, and says so of another", () => {
  const { target, warning } = parseCollectorTarget("dns://10.0.0.53/collector:4317");
  assert.equal(target, "tcp://collector:4317");
  assert.match(warning ?? "", /10\.0\.0\.53 is not asked/);
});

for (const [text, why] of [
  ["unix-abstract:otel", /have the collector listen on a file/],
  ["xds:///collector", /no scheme that is known/],
  ["https://user@collector:1", /no host:port/],
  ["collector:0", /no host:port/],
  ["collector:65536", /no host:port/],
  ["a b:4317", /no host:port/],
  ["unix://otel.sock", /want unix:\/\/\/path/],
  ["", /no host:port/],
] as const) {
  test(`parseCollectorTarget() refuses ${JSON.stringify(text)}`, () =>
    assert.throws(
      () => parseCollectorTarget(text),
      (error) => error instanceof SyntaxError && why.test(error.message),
    ));
}
