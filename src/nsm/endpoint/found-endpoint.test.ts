import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { NetworkServiceEndpointSchema } from "../../gen/registry_pb.ts";
import { foundEndpoint } from "./found-endpoint.ts";

const entry = create(NetworkServiceEndpointSchema, {
  name: "nse-1",
  url: "tcp://nse-1:1",
  networkServiceNames: ["ns1@domain", "ns2"],
  networkServiceLabels: { ns1: { labels: { app: "gateway" } }, ns2: { labels: { app: "other" } } },
  pathIds: ["spiffe://test/nse", "spiffe://test/m"],
  expirationTime: timestampFromMs(1_000),
  initialRegistrationTime: timestampFromMs(500),
});

test("foundEndpoint() is what a search for the service uses, and nothing else of an entry", () => {
  const { bytes, ...rest } = foundEndpoint(entry, "ns1");
  assert.deepEqual(rest, {
    name: "nse-1",
    url: "tcp://nse-1:1",
    registrant: "spiffe://test/nse",
    labels: { app: "gateway" },
    isServing: true,
    expiresAtMs: 1_000,
  });
  assert.equal(bytes, 256 + 5 + 13 + 17 + 64 + 10);
});

test("foundEndpoint() has no labels, registrant and expiry of an entry without", () => {
  const { labels, isServing } = foundEndpoint(entry, "constructor");
  assert.deepEqual([labels, isServing], [{}, false]);
  const { registrant, expiresAtMs, isServing: serves } = foundEndpoint(create(NetworkServiceEndpointSchema), "ns1");
  assert.deepEqual([registrant, expiresAtMs, serves], ["", undefined, true]);
});
