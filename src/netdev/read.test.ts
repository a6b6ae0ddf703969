import assert from "node:assert/strict";
import { test } from "node:test";
import type { Address, Link, LinkPlace, Neighbour, Route, Rtnl, Rule } from "../kernel/index.ts";
import { desiredNetdev, type RequestedNetdev } from "./desired.ts";
import type { NetdevError } from "./error.ts";
import { NOTHING_OWNED, OUR_PROTOCOL } from "./owned.ts";
import { readAround, readOwnTables } from "./read.ts";
import { bareNetdev } from "./testing/bare-netdev.ts";

const link = { index: 7, name: "nsm-1" } as Link;
const MOST = 16_384;

function route(destination: string, more: Partial<Route> = {}): Route {
  const how = { gateway: undefined, ifindex: 7, scope: 0, type: 1, metric: 0, onlink: false };
  return { family: 4, destination, prefixLength: 16, table: 254, protocol: OUR_PROTOCOL, ...how, ...more };
}

const rule = (table: number, protocol = OUR_PROTOCOL) => ({ family: 4, table, protocol }) as Rule;

interface Namespace {
  readonly routes?: readonly Route[];
  readonly rules?: readonly Rule[];
  readonly addresses?: readonly Address[];
  readonly neighbours?: readonly Neighbour[];
  readonly sysctls?: Readonly<Record<string, string>>;
}

function namespaceWith(namespace: Namespace): LinkPlace {
  const { routes = [], rules = [], addresses = [], neighbours = [], sysctls = {} } = namespace;
  // As where changes have cut each first try. What may be without number is bounded, or nothing of it is kept.
  const list = <T>(all: readonly T[], concerns = (_: T) => true, { most = 0 }: { most?: number | undefined } = {}) => {
    all.filter(concerns);
    return all.filter(concerns).slice(0, most);
  };
  const rtnl: Partial<Rtnl> = {
    addresses: async (_, concerns, options) => list(addresses, concerns, options),
    neighbours: async (_, concerns, options) => list(neighbours, concerns, options),
    routes: async (concerns, options) => list(routes, concerns, options),
    rules: async (concerns, options) => list(rules, concerns, options),
  };
  const readSysctl = (name: string) => {
    const value = sysctls[name];
    if (value === undefined) throw Object.assign(new Error(name), { code: "ENOENT" });
    return value;
  };
  return { rtnl, netns: { readSysctl } } as unknown as LinkPlace;
}

const around = (namespace: Namespace, requested: Partial<RequestedNetdev> = {}) =>
  readAround(namespaceWith(namespace), link, desiredNetdev({ ...bareNetdev, ...requested }));

test("readAround() keeps ours, and of others what leads where a request leads, but names the tables of all", async () => {
  const theirs = { protocol: 3, ifindex: 2 };
  const routes = [
    route("10.1.0.0"),
    route("10.2.0.0", { ifindex: 8 }),
    route("10.3.0.0", { ...theirs, table: 11 }),
    route("10.4.0.0", theirs),
    route("10.5.0.0", theirs),
  ];
  const requested = {
    routes: [{ prefix: "10.4.0.0/16", nextHop: "10.0.0.2" }],
    policies: [{ routes: [{ prefix: "10.5.0.0/16" }] }],
  };
  const actual = await around({ routes, rules: [rule(12), rule(13, 3)] }, requested);
  assert.deepEqual(
    actual.routes.map(({ destination }) => destination),
    ["10.1.0.0", "10.4.0.0", "10.5.0.0"],
  );
  assert.deepEqual([actual.rules, [...actual.tables].sort()], [[rule(12)], [11, 12, 13, 254]]);
});

test("readAround() keeps of a link's neighbours ours, and those at the addresses of the request", async () => {
  const neighbour = (address: string, more: Partial<Neighbour> = {}) =>
    ({ ifindex: 7, address, permanent: true, protocol: 3, ...more }) as Neighbour;
  const ours = neighbour("10.0.0.1", { protocol: OUR_PROTOCOL });
  const wanted = neighbour("10.0.0.2", { permanent: false });
  const neighbours = [ours, wanted, neighbour("10.0.0.3"), neighbour("10.0.0.4", { permanent: false })];
  const requested = { neighbours: [{ address: "10.0.0.2", mac: "02:00:00:00:00:02" }] };
  assert.deepEqual((await around({ neighbours }, requested)).neighbours, [ours, wanted]);
});

test("readAround() keeps of the tables those that one of ours can be", async () => {
  const routes = [1, 4_096, 4_097, 2 ** 31].map((table) => route("10.1.0.0", { table, protocol: 3 }));
  const rules = [rule(4_095, 3), rule(5_000, 3)];
  assert.deepEqual([...(await around({ routes, rules })).tables].sort(), [1, 4_095, 4_096]);
});

test("readAround() reads what the namespace lets be read", async () => {
  const read = async (sysctls: Readonly<Record<string, string>>) => {
    const { ipv6Disabled, pingGroups } = await around({ sysctls });
    return [ipv6Disabled, pingGroups];
  };
  const of = (disabled: string) => ({ "net/ipv6/conf/nsm-1/disable_ipv6": disabled });
  assert.deepEqual(await read({}), [undefined, undefined]);
  assert.deepEqual(await read({ ...of("0"), "net/ipv4/ping_group_range": "0\t2147483647" }), [false, "0 2147483647"]);
  assert.deepEqual(await read(of("1")), [true, undefined]);
});

test("readAround() bounds the addresses of the link", async () => {
  const addresses = Array.from({ length: MOST + 1 }, () => ({ ifindex: 7 }) as Address);
  assert.equal((await around({ addresses: addresses.slice(1) })).addresses.length, MOST);
  await assert.rejects(around({ addresses }), ({ fault }: NetdevError) => fault.kind === "crowded");
});

test("readAround() bounds what is marked as ours, routes and rules together", async () => {
  const routes = Array.from({ length: MOST - 1 }, () => route("10.1.0.0"));
  const actual = await around({ routes, rules: [rule(12)] });
  assert.equal(actual.routes.length + actual.rules.length, MOST);
  const isCrowded = ({ fault }: NetdevError) => fault.kind === "crowded";
  await assert.rejects(around({ routes, rules: [rule(12), rule(13)] }), isCrowded);
  await assert.rejects(around({ routes: [...routes, ...routes.slice(0, 2)] }), isCrowded);
});

test("readOwnTables() goes by the marks of this link's routes, and by memory", async () => {
  const routes = [route("10.1.0.0", { table: 5 }), route("10.1.0.0", { table: 6, ifindex: 8 }), route("10.1.0.0")];
  const owned = { ...NOTHING_OWNED, tables: [9] };
  assert.deepEqual(await readOwnTables(namespaceWith({ routes }), 7, owned), [9, 5]);
});

test("readOwnTables() bounds the tables that a pod can have us remember", async () => {
  const routes = Array.from({ length: 2_000 }, (_, table) => route("10.1.0.0", { table: 1_000 + table }));
  assert.equal((await readOwnTables(namespaceWith({ routes }), 7, NOTHING_OWNED)).length, 1_024);
});
