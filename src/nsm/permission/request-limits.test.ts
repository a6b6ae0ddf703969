import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { ConnectionSchema } from "../../gen/connection_pb.ts";
import { NetworkServiceRequestSchema } from "../../gen/networkservice_pb.ts";
import { decodeToken } from "../../identity/index.ts";
import { kernelRequest } from "../testing/fakes.ts";
import { checkRequestSize, LIMITS } from "./request-limits.ts";

const long = "x".repeat(LIMITS.textBytes + 1);
const many = <T>(count: number, one: T): T[] => Array.from({ length: count + 1 }, () => one);
const crowded = Object.fromEntries(many(LIMITS.mapEntries, "").map((value, key) => [`k${key}`, value]));
type ConnectionInit = Omit<MessageInitShape<typeof ConnectionSchema>, "$typeName">;

const rows: readonly (readonly [what: string, connection: ConnectionInit])[] = [
  ["path segments", { path: { pathSegments: many(LIMITS.pathSegments, {}) } }],
  ["a token", { path: { pathSegments: [{ token: "x".repeat(LIMITS.tokenBytes + 1) }] } }],
  ["metrics", { path: { pathSegments: [{ metrics: crowded }] } }],
  ["labels", { labels: crowded }],
  ["a label", { labels: { app: long } }],
  ["a label's key", { labels: { [long]: "" } }],
  ["a service's name", { networkService: long }],
  ["a mechanism's type", { mechanism: { type: long } }],
  ["a mechanism's class", { mechanism: { cls: long } }],
  ["mechanism parameters", { mechanism: { parameters: crowded } }],
  ["addresses", { context: { ipContext: { srcIpAddrs: many(LIMITS.contextEntries, "10.0.0.1/32") } } }],
  ["an address", { context: { ipContext: { dstIpAddrs: [long] } } }],
  ["routes", { context: { ipContext: { srcRoutes: many(LIMITS.contextEntries, {}) } } }],
  ["a next hop", { context: { ipContext: { srcRoutes: [{ nextHop: long }] } } }],
  ["neighbours", { context: { ipContext: { ipNeighbors: many(LIMITS.contextEntries, {}) } } }],
  ["rules", { context: { ipContext: { policies: many(LIMITS.contextEntries, {}) } } }],
  [
    "routes of rules",
    { context: { ipContext: { policies: many(2, { routes: many(LIMITS.contextEntries / 2, {}) }) } } },
  ],
  ["excluded prefixes", { context: { ipContext: { excludedPrefixes: many(8 * LIMITS.contextEntries, "") } } }],
  ["a MAC address", { context: { ethernetContext: { srcMac: long } } }],
  [
    "search domains",
    { context: { dnsContext: { configs: [{ searchDomains: many(8 * LIMITS.contextEntries, "") }] } } },
  ],
  ["a search domain", { context: { dnsContext: { configs: [{ searchDomains: [long] }] } } }],
  ["extra context", { context: { extraContext: crowded } }],
];

for (const [what, connection] of rows) {
  test(`checkRequestSize() bounds ${what}`, () => {
    const request = create(NetworkServiceRequestSchema, { connection: create(ConnectionSchema, connection) });
    assert.throws(
      () => checkRequestSize(request),
      (error: Error) => /more than the limit/.test(error.message) && error.message.length < 200,
    );
  });
}

test("checkRequestSize() bounds the mechanism preferences, and each of them", () => {
  for (const mechanismPreferences of [many(LIMITS.mechanismPreferences, {}), [{}, { type: long }]]) {
    const request = create(NetworkServiceRequestSchema, { mechanismPreferences });
    assert.throws(() => checkRequestSize(request), /more than the limit/);
  }
});

// By characters, or by UTF-16 units, each of these is a third of its limit.
const wide = "\u20ac".repeat(Math.ceil(LIMITS.textBytes / 3));
const wideRows: readonly (readonly [what: string, connection: ConnectionInit])[] = [
  ["a token", { path: { pathSegments: [{ token: "\u20ac".repeat(Math.ceil(LIMITS.tokenBytes / 3)) }] } }],
  ["a segment's name", { path: { pathSegments: [{ name: wide }] } }],
  ["a segment's id", { path: { pathSegments: [{ id: wide }] } }],
  ["a label", { labels: { app: wide } }],
  ["a label's key", { labels: { [wide]: "" } }],
  ["a service's name", { networkService: wide }],
  ["a mechanism's type", { mechanism: { type: wide } }],
  ["a next hop", { context: { ipContext: { srcRoutes: [{ nextHop: wide }] } } }],
];

for (const [what, connection] of wideRows) {
  test(`checkRequestSize() counts the bytes of ${what}, not its characters`, () => {
    const request = create(NetworkServiceRequestSchema, { connection: create(ConnectionSchema, connection) });
    assert.throws(() => checkRequestSize(request), /bytes of .* more than the limit/);
  });
}

test("checkRequestSize() takes as much as each limit allows", () => {
  const text = "x".repeat(LIMITS.textBytes);
  const full = Object.fromEntries(Array.from({ length: LIMITS.mapEntries }, (_, key) => [`k${key}`, ""]));
  const segments = Array.from({ length: LIMITS.pathSegments }, () => ({
    token: "x".repeat(LIMITS.tokenBytes),
    metrics: full,
  }));
  const routes = Array.from({ length: LIMITS.contextEntries }, () => ({ prefix: text }));
  checkRequestSize(
    create(NetworkServiceRequestSchema, {
      connection: {
        networkService: text,
        labels: full,
        path: { pathSegments: segments },
        context: { ipContext: { srcRoutes: routes, policies: [{ routes }] } },
      },
      mechanismPreferences: Array.from({ length: LIMITS.mechanismPreferences }, () => ({
        type: text,
        parameters: full,
      })),
    }),
  );
});

test("checkRequestSize() takes no token that is too long for identity to read, and every other", () => {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = `${part({ alg: "ES256", typ: "JWT" })}.${part({ sub: "s", exp: 1 })}.`;
  for (const bytes of [300, 8192, 8194, 16 * 1024]) {
    const token = claims + "A".repeat(bytes - claims.length);
    const readings = [
      () => void decodeToken(token),
      () => checkRequestSize(kernelRequest({ path: { pathSegments: [{ token }] } })),
    ].map((read) => {
      try {
        read();
        return "read";
      } catch (error) {
        return String(error).includes("8192") ? "too long" : error;
      }
    });
    const expected = bytes <= 8192 ? "read" : "too long";
    assert.deepEqual(readings, [expected, expected], `${bytes} bytes`);
  }
});

test("checkRequestSize() takes an honest Request", () => {
  checkRequestSize(kernelRequest());
});
