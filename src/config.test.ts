import assert from "node:assert/strict";
import test from "node:test";
import { ConfigError, configMarkdown, parseConfig } from "./config.ts";
import { durationFrom, labels, list, listenOrOff, logLevel, socketUrl, spiffeIds } from "./config-values.ts";

/** What every environment must have. */
const least = { SPIFFE_ENDPOINT_SOCKET: "unix:///run/spire/sockets/agent.sock" };

/** What the parser wants instead; fails when it takes the text. */
function refusal(parse: () => unknown): string {
  try {
    parse();
  } catch (error) {
    if (error instanceof SyntaxError) return error.message;
    throw error;
  }
  return assert.fail("it was taken");
}

const duration = durationFrom("1ns");
const durations = [
  ["1h30m", 5_400_000],
  ["50ms", 50],
  ["1.5s", 1500],
  ["24h", 86_400_000],
  ["1m0.5s", 60_500],
  ["100us", 0.1],
  ["2µs", 0.002],
  ["2562047h", 9_223_369_200_000],
] as const;
for (const [given, ms] of durations) {
  test(`duration reads ${given} as ${ms} ms`, () => assert.equal(duration.parse(given), ms));
}
for (const given of ["10", "1 s", "-1s", "0s", "s", "1d", "1h-5m", "1s2", "Infinity"]) {
  test(`duration refuses ${JSON.stringify(given)}`, () =>
    assert.match(
      refusal(() => duration.parse(given)),
      /like 1h30m/,
    ));
}

test("duration refuses what Go's int64 of nanoseconds does not hold", () => {
  for (const given of ["2562048h", "9223372036854775808ns", `${"9".repeat(400)}h`]) {
    const said = refusal(() => duration.parse(given));
    assert.match(said, /at most 2562047h/);
  }
});

test("duration refuses a long text in time that grows with it", () => {
  const startedAt = process.cpuUsage();
  assert.throws(() => duration.parse("1".repeat(50_000)), SyntaxError);
  assert.ok(process.cpuUsage(startedAt).user < 1_000_000);
});

test("labels keep colons in values and refuse what has none", () => {
  assert.deepEqual({ ...labels.parse("p2p:true, a:b:c") }, { p2p: "true", a: "b:c" });
  assert.match(
    refusal(() => labels.parse("p2p")),
    /k:v/,
  );
  assert.match(
    refusal(() => labels.parse("a:b,a:c")),
    /once/,
  );
});

test("list refuses a hole", () => {
  assert.deepEqual(list.parse("a, b"), ["a", "b"]);
  assert.match(
    refusal(() => list.parse("a,,b")),
    /commas/,
  );
});

test("spiffeIds reads patterns between commas, and says of a wrong one what is wrong", () => {
  const read = spiffeIds.parse("spiffe://a.b/nsmgr-*, spiffe://a.b/x");
  assert.deepEqual(
    read.map(({ text }) => text),
    ["spiffe://a.b/nsmgr-*", "spiffe://a.b/x"],
  );
  assert.match(
    refusal(() => spiffeIds.parse("spiffe://a.b/x,nsmgr-*")),
    /"nsmgr-\*"/,
  );
});

test("logLevel takes the names of the field in either case", () => {
  assert.deepEqual(["INFO", "warning", "FATAL"].map(logLevel.parse), ["info", "warn", "error"]);
  assert.match(
    refusal(() => logLevel.parse("loud")),
    /TRACE/,
  );
});

test("socketUrl takes unix and tcp, and nothing else", () => {
  assert.deepEqual(["unix:///a/b.sock", "unix:/a/b.sock", "tcp://[::1]:5000", "tcp://host:1"].map(socketUrl.parse), [
    "unix:///a/b.sock",
    "unix:///a/b.sock",
    "tcp://[::1]:5000",
    "tcp://host:1",
  ]);
  for (const given of ["/a/b.sock", "unix://a/b.sock", "http://a:1", "tcp://host", "tcp://host:0", "tcp://:5"]) {
    assert.match(
      refusal(() => socketUrl.parse(given)),
      /unix:\/\/\//,
      given,
    );
  }
});

test("listenOrOff reads loopback by default and IPv6 in brackets", () => {
  assert.deepEqual({ ...listenOrOff.parse(":9871") }, { host: "localhost", port: 9871 });
  assert.deepEqual({ ...listenOrOff.parse("[::1]:0") }, { host: "::1", port: 0 });
  assert.equal(listenOrOff.parse("off"), undefined);
  for (const given of ["localhost", "::1:80", "a:70000", "a:b"]) {
    assert.match(
      refusal(() => listenOrOff.parse(given)),
      /localhost:9871/,
      given,
    );
  }
});

test("parseConfig() gives the defaults, frozen, from an environment with no more than it must have", () => {
  const { config, warnings } = parseConfig({ ...least, NSM_NAME: "" });
  assert.equal(config.name, "sriov-forwarder");
  assert.deepEqual(config.networkServices, ["sriovns", "forwarder"]);
  assert.equal(config.dialTimeoutMs, 1000);
  assert.equal(config.registryClientPolicies.length, 3);
  assert.equal(config.debugListenOn, undefined);
  assert.deepEqual({ ...config.adminListenOn }, { host: "localhost", port: 9871 });
  assert.deepEqual(warnings, []);
  assert.throws(() => Object.assign(config, { name: "x" }), TypeError);
});

test("parseConfig() takes lists and labels that are set to nothing for none, as the original does", () => {
  for (const nothing of ["", " "]) {
    const { config, effective } = parseConfig({
      ...least,
      NSM_LABELS: nothing,
      NSM_REGISTRY_CLIENT_POLICIES: nothing,
      NSM_NS_NAME: nothing,
    });
    assert.deepEqual([config.labels, config.registryClientPolicies], [{}, []]);
    assert.equal(effective["NSM_LABELS"], nothing);
    assert.deepEqual(config.networkServices, ["sriovns", "forwarder"], "a name of nothing is no name");
  }
});

test("parseConfig() takes durations of nothing where the original does", () => {
  const { config } = parseConfig({ ...least, NSM_DIAL_TIMEOUT: "0", NSM_RESOURCE_POLL_TIMEOUT: "0ms" });
  assert.deepEqual([config.dialTimeoutMs, config.resourcePollTimeoutMs], [20_000, 1_000]);
  for (const name of ["NSM_MAX_TOKEN_LIFETIME", "NSM_METRICS_EXPORT_INTERVAL", "NSM_RECONCILE_INTERVAL"]) {
    assert.throws(
      () => parseConfig({ ...least, [name]: "0s" }),
      new RegExp(`${name} is "0s": want a duration of at least`),
    );
  }
  assert.throws(() => parseConfig({ ...least, NSM_DIAL_TIMEOUT: "1ms" }), /at least 10ms .*or 0$/m);
});

test("parseConfig() takes the alias, and refuses two names that differ", () => {
  assert.deepEqual(parseConfig({ ...least, NSM_NSNAME: "forwarder" }).config.networkServices, ["forwarder"]);
  assert.deepEqual(parseConfig({ ...least, NSM_NS_NAME: "a", NSM_NSNAME: "a" }).config.networkServices, ["a"]);
  assert.throws(() => parseConfig({ NSM_NS_NAME: "a", NSM_NSNAME: "b" }), /NSM_NS_NAME and NSM_NSNAME differ/);
});

test("parseConfig() refuses one wrong variable alone, and takes spaces around a value for nothing", () => {
  assert.throws(() => parseConfig({ ...least, TELEMETRY: "perhaps" }), ConfigError);
  const { config } = parseConfig({ ...least, NSM_NAME: " fwd ", NSM_DIAL_TIMEOUT: "2s " });
  assert.deepEqual([config.name, config.dialTimeoutMs], ["fwd", 2000]);
});

test("parseConfig() reports all wrong variables at once, with what was expected", () => {
  const given = { NSM_DIAL_TIMEOUT: "50", NSM_CONNECT_TO: "nsm.io.sock", TELEMETRY: "perhaps", NSM_NAME: "fine" };
  assert.throws(
    () => parseConfig(given),
    (error: unknown) => {
      assert.ok(error instanceof ConfigError);
      const names = error.fault.problems.map((problem) => problem.variable);
      assert.deepEqual(names, ["NSM_CONNECT_TO", "NSM_DIAL_TIMEOUT", "TELEMETRY", "SPIFFE_ENDPOINT_SOCKET"]);
      assert.match(error.message, /SPIFFE_ENDPOINT_SOCKET is not set and has no default/);
      assert.match(error.message, /NSM_DIAL_TIMEOUT is "50": want a duration of at least 10ms with its unit/);
      return true;
    },
  );
});

test("parseConfig() warns of unknown NSM variables with the nearest name, and not of Kubernetes' own", () => {
  const { warnings } = parseConfig({
    ...least,
    NSM_DIAL_TIMOUT: "1s",
    NSM_SOMETHING_ELSE_ALTOGETHER: "1",
    NSM_REGISTRY_SERVICE_HOST: "10.0.0.1",
    NSM_REGISTRY_PORT_5002_TCP_ADDR: "10.0.0.1",
    HOME: "/root",
  });
  assert.deepEqual(warnings, [
    "NSM_DIAL_TIMOUT is set and nothing reads it; did you mean NSM_DIAL_TIMEOUT?",
    "NSM_SOMETHING_ELSE_ALTOGETHER is set and nothing reads it",
  ]);
});

test("NSM_SPIFFE_ID chooses by patterns, and nothing where it is not set", () => {
  const chosen = (environment: Record<string, string>) => parseConfig({ ...least, ...environment }).config.spiffeIds;
  const [pattern] = chosen({ NSM_SPIFFE_ID: "spiffe://k8s.nsm/ns/nsm-system/pod/forwarder-*" }) ?? [];
  assert.equal(pattern?.matches("spiffe://k8s.nsm/ns/nsm-system/pod/forwarder-x7k2p"), true);
  assert.equal(chosen({}), undefined);
  assert.equal(chosen({ NSM_SPIFFE_ID: "" }), undefined);
});

test("configMarkdown() has a row for each variable", () => {
  assert.match(configMarkdown(), /\| `NSM_NS_NAME` \(or `NSM_NSNAME`\) \| list \| `sriovns,forwarder` \|/);
});

test("NSM_OPEN_TELEMETRY_ENDPOINT takes any text, and OTEL_ variables are handed on and shown nowhere", () => {
  const environment = { ...least, NSM_OPEN_TELEMETRY_ENDPOINT: "dns:///a:1", OTEL_X: " secret ", OTEL_Y: " " };
  const { config, otel, effective } = parseConfig(environment);
  assert.deepEqual([config.openTelemetryEndpoint, otel], ["dns:///a:1", { OTEL_X: "secret" }]);
  assert.doesNotMatch(JSON.stringify(effective), /secret/);
});
