// What one search for an endpoint leaves of its owner's share of sockets.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { defaultLimits, PeerLimits } from "../../rpc/index.ts";
import { HandClock, PaperFd } from "../testing/fakes.ts";
import { Outside } from "../testing/fakes-outside.ts";
import { EndpointSockets } from "./endpoint-sockets.ts";
import { Discovery } from "./find-endpoints.ts";

const owner = "spiffe://test/a";
const { signal } = new AbortController();
const ends: (() => void)[] = [];

afterEach(() => {
  for (const end of ends.splice(0)) end();
  assert.equal(PaperFd.open, 0);
});

/** Services by name with their endpoints' URLs, and a process of so few descriptors that each owner may have `each` sockets. */
function setUp(each: number, urls: Readonly<Record<string, readonly string[]>>) {
  PaperFd.open = 0;
  const [clock, outside] = [new HandClock(), new Outside()];
  const limits = { ...defaultLimits, endpointSockets: { each, others: 4 * each, manager: 1 } };
  const owners = new PeerLimits({ limits, clock });
  const left: string[] = [];
  const sockets = new EndpointSockets(clock, 310_000, {
    each,
    add: (socket) => owners.addSocket(socket),
    remove: (socket) => owners.removeSocket(socket),
    leave: (target) => void left.push(target),
  });
  outside.services = Object.keys(urls).map((name) => ({ name }));
  const discovery = new Discovery({ target: "unix:///nsmgr", caller: outside, sockets, clock });
  const find = async (networkService: string) => {
    const endpoints = urls[networkService] ?? [];
    outside.endpoints = endpoints.map((url) => ({ name: url, networkServiceNames: [networkService], url }));
    const sought = { networkService, payload: "", labels: {}, endpointName: "", owner };
    return (await discovery.find(sought, signal)).candidates;
  };
  ends.push(() => sockets.stop());
  return { clock, left, find, send: (list: readonly string[]) => list.map((url) => outside.fds.sent.add(url)) };
}

const local = (count: number, from = 1) => Array.from({ length: count }, (_, at) => `inode://8/${from + at}`);

test("Discovery.find() leaves most of the owner's share of sockets to its other Requests, and ends no unused one for it", async () => {
  const [many, one] = [local(16), local(1, 100)];
  const { left, find, send } = setUp(12, { many, one });
  send([...many, ...one]);
  for (const { socket } of await find("one")) socket.release();
  const kept = await find("many");
  assert.deepEqual(
    kept.map(({ name }) => name),
    many.slice(0, 3),
  );
  for (let more = 0; more < 2; more++) await find("many");
  assert.deepEqual(left, []);
  assert.equal((await find("one")).length, 1);
});

test("Discovery.find() keeps one socket where an owner may have three", async () => {
  const many = local(3);
  const { find, send } = setUp(3, { many });
  send(many);
  assert.equal((await find("many")).length, 1);
});

test("Discovery.find() takes the next endpoint for one whose socket does not come, and all that need no socket, in their order", async () => {
  const [missing, here] = [local(4), local(4, 10)];
  const many = [...missing, "tcp://far-1:1", ...here, "tcp://far-2:1"];
  const { clock, find, send } = setUp(8, { many });
  send(here);
  const found = find("many");
  // Two at once, and each is waited for.
  for (let pair = 0; pair < 2; pair++) await clock.pass(1_100);
  assert.deepEqual(
    (await found).map(({ name }) => name),
    ["tcp://far-1:1", ...here.slice(0, 2), "tcp://far-2:1"],
  );
});
