// A namespace with very many routes and rules of its own: a router's pod has a million, a hostile one as many as it likes.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { type TestContext, test } from "node:test";
import { type LinkPlace, Netns, Rtnl } from "../../src/kernel/index.ts";
import { inSession } from "../../src/netdev/index.ts";
import { readAround } from "../../src/netdev/read.ts";
import { needs } from "../needs.ts";

const desired = {
  routes: [{ destination: { family: 4, address: "10.1.0.0", prefixLength: 16 }, gateway: undefined }],
  rules: [],
  neighbours: [{ address: "11.0.0.7", mac: "02:00:00:00:00:07" }],
} as const;

/** A namespace with a link in it, and what `ip -batch` makes of these lines there. */
async function inCrowd(t: TestContext, lines: readonly string[], work: (session: LinkPlace) => Promise<void>) {
  if (!needs(t, "netns", "veth")) return;
  const netns = Netns.create();
  t.after(() => netns.close());
  const setUp = ["link add ours type veth peer name theirs", "link set ours up", "link set theirs up"];
  execFileSync("nsenter", [`--net=/proc/${process.pid}/fd/${netns.fd.number}`, "ip", "-batch", "-"], {
    input: [...setUp, ...lines].join("\n"),
  });
  await inSession(netns, work, (place) => Rtnl.open({ netns: place }));
}

async function linkOf({ rtnl }: LinkPlace) {
  return (await rtnl.linkByName("ours")) ?? assert.fail("no link");
}

const crowd = Array.from({ length: 20_000 }, (_, i) => `11.0.${i >> 8}.${i & 255}/32`);

test("readAround() keeps nothing of thousands of foreign routes but what matters to the request", async (t) => {
  const lines = [
    ...crowd.map((prefix) => `route add blackhole ${prefix}`),
    "route add blackhole 10.2.0.0/16 table 77",
    "route add blackhole 10.1.0.0/16 metric 5",
    "route add 10.3.0.0/16 dev ours proto 110",
    "route add 10.4.0.0/16 dev theirs proto 110",
    "rule add from 10.9.0.0/16 lookup 78",
    "rule add from 10.8.0.0/16 lookup 79 proto 110",
  ];
  await inCrowd(t, lines, async (session) => {
    const { routes, rules, tables } = await readAround(session, await linkOf(session), desired);
    assert.deepEqual(routes.map(({ destination }) => destination).sort(), ["10.1.0.0", "10.3.0.0"]);
    assert.deepEqual(
      rules.map(({ table }) => table),
      [79],
    );
    assert.deepEqual(
      [77, 78, 79, 254, 80].map((table) => tables.has(table)),
      [true, true, true, true, false],
    );
  });
});

test("readAround() keeps nothing of thousands of neighbours but ours and those that are requested", async (t) => {
  const neighbour = (prefix: string, link: string) =>
    `neigh add ${prefix.replace("/32", "")} lladdr 02:00:00:00:00:01 dev ${link} nud permanent`;
  const lines = [
    ...crowd.map((prefix) => neighbour(prefix, "ours")),
    ...crowd.map((prefix) => neighbour(prefix, "theirs")),
    `${neighbour("12.0.0.1", "ours")} protocol 110`,
    `${neighbour("12.0.0.2", "theirs")} protocol 110`,
  ];
  await inCrowd(t, lines, async (session) => {
    const link = await linkOf(session);
    const { neighbours } = await readAround(session, link, desired);
    assert.deepEqual(neighbours.map(({ address }) => address).sort(), ["11.0.0.7", "12.0.0.1"]);
    assert.equal(
      (await session.rtnl.neighbours(link.index)).filter(({ permanent }) => permanent).length,
      crowd.length + 1,
    );
  });
});

test("readAround() refuses a namespace that has put our mark on thousands of routes, and says what to do", async (t) => {
  const lines = crowd.map((prefix) => `route add ${prefix} dev ours proto 110`);
  await inCrowd(t, lines, async (session) => {
    await assert.rejects(readAround(session, await linkOf(session), desired), {
      name: "NetdevError",
      message: /more than 16384 addresses, or routes and rules that are marked as ours .*; remove them there/,
    });
  });
});
