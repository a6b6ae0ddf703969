import assert from "node:assert/strict";
import { test } from "node:test";
import { type OtlpSettings, otlpSettings } from "./settings.ts";

const own = { endpoint: "ours:1", metricsIntervalMs: 10_000, name: "fwd", version: "1" };
const E = "OTEL_EXPORTER_OTLP_";
const read = (otel: Record<string, string>, endpoint = own.endpoint) => otlpSettings(otel, { ...own, endpoint });
const tlsOf = (otel: Record<string, string>, endpoint?: string) => read(otel, endpoint).traces?.tls !== undefined;

test("otlpSettings() sends where our own variable says, in the clear, where nothing else is set", () => {
  const { traces, metrics, metricsIntervalMs, resource, problems, warnings } = read({});
  assert.deepEqual(traces, {
    endpoint: "ours:1",
    target: "tcp://ours:1",
    tls: undefined,
    headers: {},
    timeoutMs: 10_000,
  });
  assert.deepEqual([metrics, metricsIntervalMs], [traces, 10_000]);
  assert.deepEqual(resource, { "service.name": "fwd", "service.version": "1" });
  assert.deepEqual([problems, warnings], [[], []]);
});

/** Variables, and what they come to. */
const rows: readonly (readonly [string, Record<string, string>, (settings: OtlpSettings) => unknown, unknown])[] = [
  [
    "an endpoint for both",
    { [`${E}ENDPOINT`]: "http://a:1" },
    (s) => [s.traces?.target, s.metrics?.target],
    ["tcp://a:1", "tcp://a:1"],
  ],
  [
    "an endpoint for one, before that for both",
    { [`${E}ENDPOINT`]: "http://a:1", [`${E}METRICS_ENDPOINT`]: "http://b:2" },
    (s) => [s.traces?.target, s.metrics?.target],
    ["tcp://a:1", "tcp://b:2"],
  ],
  [
    "files for TLS",
    { [`${E}CERTIFICATE`]: "/ca", [`${E}TRACES_CLIENT_CERTIFICATE`]: "/c", [`${E}TRACES_CLIENT_KEY`]: "/k" },
    (s) => [s.traces?.tls, s.metrics?.tls],
    [
      { name: "ours", roots: "/ca", certificate: "/c", key: "/k" },
      { name: "ours", roots: "/ca", certificate: undefined, key: undefined },
    ],
  ],
  [
    "headers, decoded",
    { [`${E}HEADERS`]: "a=b%20c, x-key=1=2" },
    (s) => s.traces?.headers,
    { a: "b c", "x-key": "1=2" },
  ],
  ["a time limit", { [`${E}TIMEOUT`]: "500" }, (s) => s.metrics?.timeoutMs, 500],
  ["the interval of metrics", { OTEL_METRIC_EXPORT_INTERVAL: "60000" }, (s) => s.metricsIntervalMs, 60_000],
  ["that all is off", { OTEL_SDK_DISABLED: "TRUE" }, (s) => [s.traces, s.metrics], [undefined, undefined]],
  [
    "that metrics are off",
    { OTEL_METRICS_EXPORTER: "none" },
    (s) => [s.traces?.target, s.metrics],
    ["tcp://ours:1", undefined],
  ],
  [
    "that traces are off",
    { OTEL_TRACES_EXPORTER: "none" },
    (s) => [s.traces, s.metrics?.target],
    [undefined, "tcp://ours:1"],
  ],
  ["a sampler", { OTEL_TRACES_SAMPLER: "always_off" }, (s) => s.sampler("0".repeat(32), undefined), false],
  [
    "attributes, and the service's name before them",
    { OTEL_RESOURCE_ATTRIBUTES: "service.name=a,k8s.node.name=n%2C1", OTEL_SERVICE_NAME: "b" },
    (s) => s.resource,
    { "service.name": "b", "service.version": "1", "k8s.node.name": "n,1" },
  ],
];
for (const [says, otel, pick, wanted] of rows) {
  test(`otlpSettings() reads ${says}`, () => {
    const settings = read(otel);
    assert.deepEqual([pick(settings), settings.warnings, settings.problems], [wanted, [], []]);
  });
}

test("otlpSettings() speaks TLS by the scheme, else as OTEL_EXPORTER_OTLP_INSECURE says, else as the variable has always meant", () => {
  const [endpoint, insecure] = [`${E}ENDPOINT`, `${E}INSECURE`];
  assert.deepEqual(
    [
      tlsOf({ [endpoint]: "https://a:1", [insecure]: "true" }),
      tlsOf({ [endpoint]: "http://a:1", [insecure]: "false" }),
      tlsOf({ [endpoint]: "a:1" }),
      tlsOf({ [endpoint]: "a:1", [insecure]: "true" }),
      tlsOf({ [endpoint]: "unix:///a" }),
      tlsOf({ [insecure]: "false" }),
      tlsOf({}, "https://a:1"),
      tlsOf({ [`${E}CERTIFICATE`]: "/ca" }),
    ],
    [true, false, true, false, false, true, true, true],
  );
});

test("otlpSettings() warns of what it cannot read, takes the default for it, and shows no header", () => {
  const { warnings, ...settings } = read({
    OTEL_SDK_DISABLED: "perhaps",
    OTEL_METRIC_EXPORT_INTERVAL: "0",
    OTEL_TRACES_SAMPLER: "mine",
    [`${E}HEADERS`]: "authorization",
    [`${E}PROTOCOL`]: "http/protobuf",
    [`${E}COMPRESSION`]: "gzip",
    OTEL_METRICS_EXPORTER: "prometheus",
    OTEL_PROPAGATORS: "b3",
  });
  assert.equal(settings.metricsIntervalMs, 10_000);
  assert.equal(settings.traces?.target, "tcp://ours:1");
  assert.deepEqual(settings.traces?.headers, {});
  const named = warnings.map((warning) => warning.split(" ")[0]).sort();
  assert.deepEqual(named, [
    `${E}COMPRESSION`,
    `${E}HEADERS`,
    `${E}PROTOCOL`,
    "OTEL_METRICS_EXPORTER",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_PROPAGATORS",
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_SAMPLER",
  ]);
  assert.doesNotMatch(warnings.join(), /authorization/);
});

test("otlpSettings() does not send where it cannot, and says which variable is wrong", () => {
  const { traces, metrics, problems } = read({ [`${E}METRICS_ENDPOINT`]: "a:1" }, "unix-abstract:otel");
  assert.deepEqual([traces, metrics?.target], [undefined, "tcp://a:1"]);
  assert.match(
    problems.join(),
    /^No traces are sent: NSM_OPEN_TELEMETRY_ENDPOINT is "unix-abstract:otel": .*on a file/,
  );
});
