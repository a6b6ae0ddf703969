import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type DescMethod, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { within } from "../../../test/scenes/until.ts";
import {
  NetworkServiceEndpointResponseSchema,
  type NetworkServiceEndpointSchema,
  NetworkServiceResponseSchema,
} from "../../gen/registry_pb.ts";
import { type CallOptions, RpcError, type RpcStream } from "../../rpc/index.ts";
import type { FileId } from "../peers.ts";
import { HandClock, PaperFds, peerNamed, settled } from "../testing/fakes.ts";
import { Outside, PaperStream } from "../testing/fakes-outside.ts";
import { EndpointSockets } from "./endpoint-sockets.ts";
import { Discovery } from "./find-endpoints.ts";

const ours = "inode://8/1";
const theirs = "inode://8/2";

/** Of one connection: what was let go of does not come back until it is sent again. */
class ForgetfulFds extends PaperFds {
  override release(id: FileId): void {
    super.release(id);
    this.sent.delete(`inode://${id.dev}/${id.ino}`);
  }
}

function setUp(caller: Outside) {
  const clock = new HandClock();
  const sockets = new EndpointSockets(clock, 1_000);
  return { clock, sockets, discovery: new Discovery({ target: "unix:///nsmgr", caller, sockets, clock }) };
}

const query = { networkService: "ns1", payload: "", labels: {}, endpointName: "", owner: "spiffe://test/a" };
const { signal } = new AbortController();

test("Discovery.find() leaves out an endpoint whose URL cannot be read", async () => {
  const outside = new Outside();
  outside.fds.sent.add(ours);
  outside.endpoints = [
    { name: "broken", networkServiceNames: ["ns1"], url: "inode://none" },
    { name: "nse-1", networkServiceNames: ["ns1"], url: ours },
  ];
  const { sockets, discovery } = setUp(outside);
  const { candidates } = await discovery.find(query, signal);
  assert.deepEqual(
    candidates.map(({ name }) => name),
    ["nse-1"],
  );
  for (const { socket } of candidates) socket.release();
  sockets.stop();
});

for (const [requested, listed, serves] of [
  ["ns1@other.domain", "ns1", true],
  ["ns1", "ns1@other.domain", true],
  ["ns1@other.domain", "ns1@third.domain", true],
  ["ns2@other.domain", "ns1", false],
] as const) {
  test(`Discovery.find() ${serves ? "takes" : "refuses"} an endpoint by name for ${requested} that serves ${listed}`, async () => {
    const outside = new Outside();
    outside.endpoints = [{ name: "nse-1", networkServiceNames: [listed], url: "tcp://nse-1:1" }];
    const { discovery } = setUp(outside);
    const found = discovery.find({ ...query, networkService: requested, endpointName: "nse-1" }, signal);
    if (serves) assert.equal((await found).candidates[0]?.name, "nse-1");
    else await assert.rejects(found, /does not serve ns2@other.domain/);
  });
}

test("Discovery.find() leaves a socket that it does not want to a search that is still running", async () => {
  const fds = new ForgetfulFds();
  const answers = new Map<string, PaperStream<unknown>>();
  const outside = new Outside();
  outside.stream = ((_target: string, _method: unknown, query: { networkServiceEndpoint: { name: string } }) => {
    const stream = new PaperStream<unknown>({ peer: peerNamed("nsmgr-a"), fds });
    answers.set(query.networkServiceEndpoint.name, stream);
    return stream;
  }) as unknown as Outside["stream"];
  const { sockets, discovery } = setUp(outside);
  const slow = discovery.find({ ...query, endpointName: "theirs" }, signal);
  const quick = discovery.find({ ...query, endpointName: "ours" }, signal);
  await settled();
  for (const [name, url] of [
    ["ours", ours],
    ["theirs", theirs],
  ] as const) {
    fds.sent.add(url);
    const networkServiceEndpoint = { name, networkServiceNames: ["ns1"], url };
    for (const stream of answers.values()) {
      stream.push(create(NetworkServiceEndpointResponseSchema, { networkServiceEndpoint }));
    }
  }
  answers.get("ours")?.end();
  await quick;
  answers.get("theirs")?.end();
  const { candidates } = await within("the slow search has its socket", slow);
  assert.equal(candidates[0]?.socket.url, theirs);
  assert.deepEqual([...fds.sent], [], "what is not used is released in the end");
  sockets.stop();
});

/** A registry that answers every query for endpoints with this list; what was queried is kept. */
function listing(outside: Outside, list: readonly MessageInitShape<typeof NetworkServiceEndpointSchema>[]) {
  const requested: { query: unknown; options: CallOptions | undefined; stream: PaperStream<unknown> }[] = [];
  outside.stream = ((_target: string, method: DescMethod, query: unknown, options?: CallOptions) => {
    const stream = new PaperStream<unknown>({ peer: peerNamed("nsmgr-a"), fds: outside.fds });
    if (method.parent.typeName === "registry.NetworkServiceRegistry") {
      for (const networkService of outside.services)
        stream.push(create(NetworkServiceResponseSchema, { networkService }));
    } else {
      for (const networkServiceEndpoint of list) {
        stream.push(create(NetworkServiceEndpointResponseSchema, { networkServiceEndpoint }));
      }
    }
    stream.end();
    requested.push({ query, options, stream });
    return stream as unknown as RpcStream<unknown>;
  }) as Outside["stream"];
  return requested;
}

test("Discovery.find() queries the registry for the service with its payload, and gives up with its caller", async () => {
  const outside = new Outside();
  const requested = listing(outside, [{ name: "nse-1", networkServiceNames: ["ns1"], url: "tcp://nse-1:1" }]);
  outside.services = [{ name: "other" }, { name: "ns1", payload: "ETHERNET" }];
  const offer = await setUp(outside).discovery.find({ ...query, payload: "IP" }, signal);
  assert.equal(offer.payload, "ETHERNET");
  assert.deepEqual(
    requested.map(({ query }) => query),
    [{ networkService: { name: "ns1", payload: "IP" } }, { networkServiceEndpoint: { networkServiceNames: ["ns1"] } }],
  );
  assert.ok(requested.every(({ options }) => options?.signal === signal));
});

test("Discovery.find() does not know a service that the registry has taken back", async () => {
  const outside = new Outside();
  outside.stream = (() => {
    const stream = new PaperStream<unknown>({ peer: peerNamed("nsmgr-a"), fds: outside.fds });
    stream.push(create(NetworkServiceResponseSchema, { networkService: { name: "ns1" }, deleted: true }));
    stream.end();
    return stream as unknown as RpcStream<unknown>;
  }) as Outside["stream"];
  await assert.rejects(setUp(outside).discovery.find(query, signal), {
    fault: { kind: "service-not-found", service: "ns1" },
  });
});

test("Discovery.find() leaves out endpoints that have expired, at this very moment too, and tries so many as a Request can", async () => {
  const outside = new Outside();
  const { clock, discovery } = setUp(outside);
  const expiring = (name: string, afterMs: number) => {
    const expirationTime = timestampFromMs(clock.now() + afterMs);
    return { name, networkServiceNames: ["ns1"], url: "tcp://nse:1", expirationTime };
  };
  const good = Array.from({ length: 20 }, (_, at) => expiring(`good-${at}`, 1));
  listing(outside, [expiring("old", -1), expiring("now", 0), ...good]);
  const { candidates } = await discovery.find(query, signal);
  assert.deepEqual(
    candidates.map(({ name }) => name),
    good.slice(0, 16).map(({ name }) => name),
  );
});

test("Discovery.find() fails as its last candidate did where no socket of a list has come", async () => {
  const outside = new Outside();
  listing(outside, [{ name: "nse-1", networkServiceNames: ["ns1"], url: ours }]);
  const { clock, discovery } = setUp(outside);
  const failed = assert.rejects(discovery.find(query, signal), /inode:\/\/8\/1 did not arrive/);
  await clock.pass(1_100);
  await failed;
});

test("Discovery.find() by name takes an endpoint that lists no services, and any for a request without one", async () => {
  const outside = new Outside();
  listing(outside, [
    { name: "nse-1", url: "tcp://nse-1:1" },
    { name: "nse-2", networkServiceNames: ["ns2"], url: "tcp://nse-2:1" },
  ]);
  const { discovery } = setUp(outside);
  assert.equal((await discovery.find({ ...query, endpointName: "nse-1" }, signal)).candidates.length, 1);
  const anyService = { ...query, networkService: "", endpointName: "nse-2" };
  assert.equal((await discovery.find(anyService, signal)).candidates.length, 1);
});

test("Discovery.find() reads no list without end, and keeps the sockets of one for no search under way", async () => {
  const outside = new Outside();
  const requested = listing(
    outside,
    Array.from({ length: 16_385 }, (_, at) => ({ name: `nse-${at}`, url: `inode://8/${at}` })),
  );
  const { discovery } = setUp(outside);
  const never = new PaperStream<unknown>({ peer: peerNamed("nsmgr-a"), fds: outside.fds });
  const list = outside.stream;
  outside.stream = (() => never as unknown as RpcStream<unknown>) as Outside["stream"];
  const slow = discovery.find({ ...query, endpointName: "slow" }, signal);
  outside.stream = list;
  await assert.rejects(discovery.find({ ...query, endpointName: "nse-16384" }, signal), /nse-16384 not found/);
  assert.ok(requested[0]?.stream.isCancelled);
  assert.equal(outside.fds.released.length, 16_384);
  never.end();
  await assert.rejects(slow, /slow/);
});

test("Discovery.find() goes by the latest word of an answer about each endpoint", async () => {
  const outside = new Outside();
  const said = [
    ["nse-1", "tcp://nse-1:1", false],
    ["nse-2", "tcp://nse-2:1", false],
    ["nse-1", "tcp://nse-1:1", true],
    ["nse-2", "tcp://nse-2:2", false],
  ] as const;
  outside.stream = (() => {
    const stream = new PaperStream<unknown>({ peer: peerNamed("nsmgr-a"), fds: outside.fds });
    for (const [name, url, deleted] of said) {
      const networkServiceEndpoint = { name, networkServiceNames: ["ns1"], url };
      stream.push(create(NetworkServiceEndpointResponseSchema, { networkServiceEndpoint, deleted }));
    }
    stream.end();
    return stream;
  }) as unknown as Outside["stream"];
  const { discovery } = setUp(outside);
  const { candidates } = await discovery.find({ ...query, endpointName: "nse-2" }, signal);
  assert.equal(candidates[0]?.socket.url, "tcp://nse-2:2");
  const fault = { fault: { kind: "endpoint-not-found", endpoint: "nse-1" } };
  await assert.rejects(discovery.find({ ...query, endpointName: "nse-1" }, signal), fault);
});

test("Discovery.find() remembers whose turn it is for as many services as an honest peer requests, and no more", async () => {
  const outside = new Outside();
  const { discovery } = setUp(outside);
  const firstOf = async (networkService: string) => {
    const networkServiceNames = [networkService];
    outside.services = [{ name: networkService }];
    outside.endpoints = ["nse-1", "nse-2"].map((name) => ({ name, networkServiceNames, url: `tcp://${name}:1` }));
    return (await discovery.find({ ...query, networkService }, signal)).candidates[0]?.name;
  };
  assert.deepEqual([await firstOf("ns1"), await firstOf("ns2")], ["nse-1", "nse-1"]);
  for (let other = 0; other < 1022; other++) await firstOf(`other-${other}`);
  assert.equal(await firstOf("ns1"), "nse-2");
  await firstOf("one-more");
  assert.equal(await firstOf("ns2"), "nse-1", "the one that was asked for longest ago is forgotten");
  assert.equal(await firstOf("ns1"), "nse-1", "its third turn");
});

for (const [says, endpoints] of [
  ["no endpoint that serves the service", [{ name: "nse-1", networkServiceNames: ["ns2"], url: ours }]],
  ["only what has expired", [{ name: "nse-1", networkServiceNames: ["ns1"], url: ours, expirationTime: {} }]],
] as const) {
  test(`Discovery.find() lets go of every socket of a list that has ${says}`, async () => {
    const outside = new Outside();
    outside.endpoints = endpoints as unknown as Outside["endpoints"];
    outside.fds.sent.add(ours);
    const { discovery } = setUp(outside);
    await assert.rejects(discovery.find({ ...query, endpointName: "nse-1" }, signal), /nse-1/);
    await assert.rejects(discovery.find({ ...query, networkService: "ns3" }, signal));
    assert.deepEqual(outside.fds.released, [ours]);
  });
}

test("Discovery.find() lets go of every socket of a list that ends in an error", async () => {
  const outside = new Outside();
  outside.stream = (() => {
    const stream = new PaperStream<unknown>({ peer: peerNamed("nsmgr-a"), fds: outside.fds });
    const networkServiceEndpoint = { name: "nse-1", networkServiceNames: ["ns1"], url: ours };
    stream.push(create(NetworkServiceEndpointResponseSchema, { networkServiceEndpoint }));
    stream.end(new RpcError("UNAVAILABLE", "connection lost"));
    return stream;
  }) as unknown as Outside["stream"];
  const { discovery } = setUp(outside);
  await assert.rejects(discovery.find({ ...query, endpointName: "nse-1" }, signal), { code: "UNAVAILABLE" });
  assert.deepEqual(outside.fds.released, [ours]);
});

/** What one registrant, or several, have registered for the service. */
const registered = (registrant: string, names: readonly string[]) =>
  names.map((name) => ({ name, networkServiceNames: ["ns1"], url: `tcp://${name}:1`, pathIds: [registrant, "nsmgr"] }));
const many = (count: number) => Array.from({ length: count }, (_, at) => `bogus-${at}`);
const namesOf = async (discovery: Discovery) =>
  (await discovery.find(query, signal)).candidates.map(({ name }) => name);

test("Discovery.find() takes one endpoint of each registrant before a second of any, and begins at each in its turn", async () => {
  const outside = new Outside();
  listing(outside, [...registered("evil", many(33)), ...registered("nse", ["nse-1", "nse-2"])]);
  const { discovery } = setUp(outside);
  assert.deepEqual((await namesOf(discovery)).slice(0, 5), ["bogus-0", "nse-1", "bogus-1", "nse-2", "bogus-2"]);
  assert.deepEqual((await namesOf(discovery)).slice(0, 3), ["nse-1", "bogus-0", "nse-2"]);
  assert.deepEqual((await namesOf(discovery)).slice(0, 3), ["bogus-1", "nse-2", "bogus-2"]);
});

test("Discovery.find() finds the endpoint of one registrant behind thousands of another's", async () => {
  const outside = new Outside();
  listing(outside, [...registered("evil", many(5_000)), ...registered("nse", ["nse-1"])]);
  const { discovery } = setUp(outside);
  assert.deepEqual((await namesOf(discovery)).slice(0, 2), ["bogus-0", "nse-1"]);
});

test("Discovery.find() puts what failed last for half a minute, behind it others of the same registrant, and forgets that when it agrees", async () => {
  const outside = new Outside();
  listing(outside, [...registered("evil", many(2)), ...registered("nse", ["nse-1"])]);
  const { discovery, clock } = setUp(outside);
  const first = await discovery.find(query, signal);
  first.candidates[0]?.note?.("failed");
  await namesOf(discovery);
  assert.deepEqual(await namesOf(discovery), ["nse-1", "bogus-1", "bogus-0"]);
  await clock.pass(30_000);
  await namesOf(discovery);
  assert.deepEqual(await namesOf(discovery), ["bogus-0", "nse-1", "bogus-1"]);
  const again = await discovery.find(query, signal);
  again.candidates.find(({ name }) => name === "nse-1")?.note?.("failed");
  again.candidates.find(({ name }) => name === "nse-1")?.note?.("agreed");
  assert.equal((await namesOf(discovery))[1], "nse-1");
});

test("Discovery.find() waits for sockets that do not come side by side, and tries those endpoints last from then on", async () => {
  const outside = new Outside();
  const missing = many(15).map((name, at) => ({ ...registered(`evil-${at}`, [name])[0], url: `inode://8/${at + 10}` }));
  listing(outside, [...missing, ...registered("nse", ["nse-1"])]);
  const { discovery, clock } = setUp(outside);
  const found = namesOf(discovery);
  await clock.pass(1_100);
  assert.deepEqual(await found, ["nse-1"]);
  for (const { url } of missing) outside.fds.sent.add(url);
  assert.equal((await namesOf(discovery))[0], "nse-1");
});

test("Discovery.find() holds nothing against an endpoint whose socket there was no room for", async () => {
  const outside = new Outside();
  outside.fds.sent.add(ours);
  listing(outside, [
    ...registered("full", ["full"]).map((one) => ({ ...one, url: ours })),
    ...registered("nse", ["nse-1"]),
  ]);
  const clock = new HandClock();
  let hasRoom = false;
  const shares = { each: 96, add: () => hasRoom, remove() {}, leave() {} };
  const sockets = new EndpointSockets(clock, 1_000, shares);
  const discovery = new Discovery({ target: "unix:///nsmgr", caller: outside, sockets, clock });
  assert.deepEqual(await namesOf(discovery), ["nse-1"]);
  assert.deepEqual([outside.fds.released, outside.fds.received.map(({ isOpen }) => isOpen)], [[ours], [false]]);
  hasRoom = true;
  await namesOf(discovery);
  assert.deepEqual(await namesOf(discovery), ["full", "nse-1"]);
  sockets.stop();
});

test("Discovery.find() that is given up holds nothing against an endpoint whose socket has not come yet", async () => {
  const outside = new Outside();
  const late = registered("late", ["late"]).map((one) => ({ ...one, url: ours }));
  listing(outside, [...late, ...registered("nse", ["nse-1"])]);
  const { discovery } = setUp(outside);
  const caller = new AbortController();
  const found = discovery.find(query, caller.signal);
  await settled();
  caller.abort(new Error("the caller has gone"));
  await found;
  outside.fds.sent.add(ours);
  await namesOf(discovery);
  assert.deepEqual(await namesOf(discovery), ["late", "nse-1"]);
});

test("Discovery.find() counts endpoints of which the registry has noted no registrant as those of one", async () => {
  const outside = new Outside();
  const unnamed = registered("", many(33)).map((one) => ({ ...one, pathIds: [] }));
  listing(outside, [...unnamed, ...registered("nse", ["nse-1"])]);
  assert.deepEqual((await namesOf(setUp(outside).discovery)).slice(0, 3), ["bogus-0", "nse-1", "bogus-1"]);
});

test("Discovery.find() does not take an endpoint of a URL that is longer than any socket's", async () => {
  const outside = new Outside();
  const [nse] = registered("nse", ["nse-1"]);
  const url = (bytes: number) => `tcp://${"é".repeat((bytes - 6) / 2)}`;
  listing(outside, [
    { ...nse, name: "long", url: url(258) },
    { ...nse, name: "longest", url: url(256) },
    nse ?? {},
    { ...nse, url: url(258) },
  ]);
  assert.deepEqual(await namesOf(setUp(outside).discovery), ["longest"]);
  listing(outside, [{ ...nse, url: `inode://8/${"1".repeat(250)}` }]);
  await assert.rejects(namesOf(setUp(outside).discovery), { fault: { kind: "no-candidates" } });
});

test("Discovery.find() keeps no more than a share of bytes of what one registrant has listed, and the others' endpoints", async () => {
  const outside = new Outside();
  const labelled = (app: string, filler = 0) => ({
    networkServiceLabels: {
      ns1: { labels: { app, filler: "x".repeat(filler) } },
      other: { labels: { app: "gateway" } },
    },
  });
  const large = registered("evil", many(100)).map((one, at) => ({
    ...one,
    ...labelled(at === 60 ? "gateway" : "none", 60 * 1024),
  }));
  outside.services = [{ name: "ns1", matches: [{ routes: [{ destinationSelector: { app: "gateway" } }] }] }];
  const honest = registered("nse", ["nse-1", "nse-2"]).map((one) => ({ ...one, ...labelled("gateway") }));
  listing(outside, [...honest.slice(0, 1), ...large, ...honest.slice(1)]);
  assert.deepEqual(await namesOf(setUp(outside).discovery), ["nse-1", "nse-2"]);
});
