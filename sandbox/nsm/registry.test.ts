import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { type Clock, systemClock } from "../../src/async/index.ts";
import { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../src/gen/registry_pb.ts";
import { matchesEndpoint, matchesService, Registry } from "./registry.ts";

const endpoint = create(NetworkServiceEndpointSchema, {
  name: "nse-1",
  networkServiceNames: ["ns"],
  networkServiceLabels: { ns: { labels: { app: "x", zone: "1" } } },
  url: "unix:///run/nse.sock",
});

const queries = [
  { says: "everything for an empty query", query: {}, fits: true },
  { says: "a subset of the labels", query: { networkServiceLabels: { ns: { labels: { app: "x" } } } }, fits: true },
  { says: "no other label value", query: { networkServiceLabels: { ns: { labels: { app: "y" } } } }, fits: false },
  { says: "all asked services only", query: { networkServiceNames: ["ns", "other"] }, fits: false },
  { says: "a part of the url", query: { url: "nse.sock" }, fits: true },
  { says: "the exact name", query: { name: "nse" }, fits: false },
];
for (const { says, query, fits } of queries) {
  test(`matchesEndpoint() takes ${says}`, () => {
    assert.equal(matchesEndpoint(create(NetworkServiceEndpointSchema, query), endpoint), fits);
  });
}

test("matchesService() takes empty fields for anything", () => {
  const service = create(NetworkServiceSchema, { name: "ns", payload: "ETHERNET" });
  assert.equal(matchesService(create(NetworkServiceSchema, { name: "ns" }), service), true);
  assert.equal(matchesService(create(NetworkServiceSchema, { payload: "IP" }), service), false);
});

test("Registry.putEndpoint() keeps an endpoint until it expires, and notifies watchers", () => {
  let fire = () => {};
  const clock: Clock = {
    ...systemClock,
    now: () => 1000,
    after: (delayMs, callback) => {
      assert.equal(delayMs, 500);
      fire = callback;
      return { cancel() {} };
    },
  };
  const registry = new Registry(clock);
  const seen: string[] = [];
  registry.endpoints.watch(({ entry, deleted }) => seen.push(`${entry.endpoint.name} ${deleted ? "left" : "came"}`));
  registry.putEndpoint({ endpoint, socket: undefined }, 1500);
  fire();
  assert.deepEqual(seen, ["nse-1 came", "nse-1 left"]);
  assert.equal(registry.endpoints.get("nse-1"), undefined);
});
