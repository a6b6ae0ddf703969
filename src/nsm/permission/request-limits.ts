import type { Connection, Mechanism, MonitorScopeSelector } from "../../gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../../gen/networkservice_pb.ts";
import { LONGEST_TOKEN_BYTES } from "../../identity/index.ts";
import { NsmError } from "../fault.ts";

/** How much of each thing a peer may send. Far above any honest use, far below what would hurt. */
export const LIMITS = {
  pathSegments: 32,
  mechanismPreferences: 16,
  mapEntries: 128,
  /** Addresses, routes, rules and neighbours, each. */
  contextEntries: 512,
  textBytes: 4096,
  tokenBytes: LONGEST_TOKEN_BYTES,
  selectorSegments: 32,
  selectorServices: 64,
} as const;

/** @throws {NsmError} too-large. */
export function checkRequestSize(request: NetworkServiceRequest): void {
  atMost("mechanism preferences", request.mechanismPreferences.length, LIMITS.mechanismPreferences);
  for (const mechanism of request.mechanismPreferences) checkMechanismSize(mechanism);
  if (request.connection) checkConnectionSize(request.connection);
}

/** For what a caller sends and for what an endpoint answers. @throws {NsmError} too-large. */
export function checkConnectionSize(connection: Connection): void {
  checkPathSize(connection);
  checkMap("labels", connection.labels);
  if (connection.mechanism) checkMechanismSize(connection.mechanism);
  checkContextSize(connection);
  const texts = [connection.id, connection.networkService, connection.networkServiceEndpointName, connection.payload];
  for (const text of texts) atMost("bytes of a name", bytesOf(text), LIMITS.textBytes);
}

/** @throws {NsmError} too-large. */
export function checkSelectorSize(selector: MonitorScopeSelector): void {
  atMost("path segments in a selector", selector.pathSegments.length, LIMITS.selectorSegments);
  atMost("network services in a selector", selector.networkServices.length, LIMITS.selectorServices);
}

function checkPathSize(connection: Connection): void {
  const segments = connection.path?.pathSegments ?? [];
  atMost("path segments", segments.length, LIMITS.pathSegments);
  for (const segment of segments) {
    atMost("bytes of a path segment", bytesOf(segment.name) + bytesOf(segment.id), LIMITS.textBytes);
    atMost("bytes of a token", bytesOf(segment.token), LIMITS.tokenBytes);
    checkMap("metrics", segment.metrics);
  }
}

function checkContextSize(connection: Connection): void {
  const context = connection.context;
  if (!context) return;
  checkTexts("a context", context);
  checkMap("extra context", context.extraContext);
  atMost("DNS configurations", context.dnsContext?.configs.length ?? 0, LIMITS.contextEntries);
  const ip = context.ipContext;
  if (!ip) return;
  const lists = [ip.srcIpAddrs, ip.dstIpAddrs, ip.srcRoutes, ip.dstRoutes, ip.ipNeighbors, ip.policies];
  for (const list of lists) atMost("entries of an IP context", list.length, LIMITS.contextEntries);
  let routes = 0;
  for (const policy of ip.policies) routes += policy.routes.length;
  atMost("routes of IP policies", routes, LIMITS.contextEntries);
  for (const list of [ip.excludedPrefixes, ip.extraPrefixes, ip.extraPrefixRequest]) {
    atMost("prefixes of an IP context", list.length, 8 * LIMITS.contextEntries);
  }
}

/** Every text, wherever it is, and every list that has no narrower limit: DNS servers, search domains. */
function checkTexts(what: string, value: unknown): void {
  if (typeof value === "string") atMost(`bytes of ${what}`, bytesOf(value), LIMITS.textBytes);
  else if (ArrayBuffer.isView(value)) atMost(`bytes of ${what}`, value.byteLength, LIMITS.textBytes);
  else if (typeof value === "object" && value !== null) {
    const parts = Object.values(value);
    atMost(`parts of ${what}`, parts.length, 8 * LIMITS.contextEntries);
    for (const part of parts) checkTexts(what, part);
  }
}

function checkMechanismSize(mechanism: Mechanism): void {
  checkTexts("a mechanism's name", [mechanism.cls, mechanism.type]);
  checkMap("mechanism parameters", mechanism.parameters);
}

function checkMap(what: string, map: Readonly<Record<string, string>>): void {
  const entries = Object.entries(map);
  atMost(`entries of ${what}`, entries.length, LIMITS.mapEntries);
  for (const [key, value] of entries) atMost(`bytes of ${what}`, bytesOf(key) + bytesOf(value), LIMITS.textBytes);
}

/** As they came over the wire: UTF-8. */
function bytesOf(text: string): number {
  return Buffer.byteLength(text);
}

function atMost(what: string, size: number, limit: number): void {
  if (size > limit) throw new NsmError({ kind: "too-large", what, size, limit });
}
