import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type DescMethod, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
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

const query = { networkService: "ns1", payload: "", labels: {}, endpointName: "" };
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

for (const [asked, listed, serves] of [
  ["ns1@other.domain", "ns1", true],
  ["ns1", "ns1@other.domain", true],
  ["ns1@other.domain", "ns1@third.domain", true],
  ["ns2@other.domain", "ns1", false],
] as const) {
  test(`Discovery.find() ${serves ? "takes" : "refuses"} an endpoint by name for ${asked} that serves ${listed}`, async () => {
    const outside = new Outside();
    outside.endpoints = [{ name: "nse-1", networkServiceNames: [listed], url: "tcp://nse-1:1" }];
    const { discovery } = setUp(outside);
    const found = discovery.find({ ...query, networkService: asked, endpointName: "nse-1" }, signal);
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
  const { candidates } = await slow;
  assert.equal(candidates[0]?.socket.url, theirs);
  assert.deepEqual([...fds.sent], [], "what is not used is released in the end");
  sockets.stop();
});

/** A registry that answers every query for endpoints with this list; what was queried is kept. */
function listing(outside: Outside, list: readonly MessageInitShape<typeof NetworkServiceEndpointSchema>[]) {
  const asked: { query: unknown; options: CallOptions | undefined; stream: PaperStream<unknown> }[] = [];
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
    asked.push({ query, options, stream });
    return stream as unknown as RpcStream<unknown>;
  }) as Outside["stream"];
  return asked;
}

test("Discovery.find() queries the registry for the service with its payload, and gives up with its caller", async () => {
  const outside = new Outside();
  const asked = listing(outside, [{ name: "nse-1", networkServiceNames: ["ns1"], url: "tcp://nse-1:1" }]);
  outside.services = [{ name: "other" }, { name: "ns1", payload: "ETHERNET" }];
  const offer = await setUp(outside).discovery.find({ ...query, payload: "IP" }, signal);
  assert.equal(offer.payload, "ETHERNET");
  assert.deepEqual(
    asked.map(({ query }) => query),
    [{ networkService: { name: "ns1", payload: "IP" } }, { networkServiceEndpoint: { networkServiceNames: ["ns1"] } }],
  );
  assert.ok(asked.every(({ options }) => options?.signal === signal));
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
  const asked = listing(
    outside,
    Array.from({ length: 1_025 }, (_, at) => ({ name: `nse-${at}`, url: `inode://8/${at}` })),
  );
  const { discovery } = setUp(outside);
  const never = new PaperStream<unknown>({ peer: peerNamed("nsmgr-a"), fds: outside.fds });
  const list = outside.stream;
  outside.stream = (() => never as unknown as RpcStream<unknown>) as Outside["stream"];
  const slow = discovery.find({ ...query, endpointName: "slow" }, signal);
  outside.stream = list;
  await assert.rejects(discovery.find({ ...query, endpointName: "nse-1" }, signal), /lists more than 1024 entries/);
  assert.ok(asked[0]?.stream.isCancelled);
  assert.equal(outside.fds.released.length, 1_025);
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
