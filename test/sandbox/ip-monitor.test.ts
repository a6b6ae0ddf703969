import assert from "node:assert/strict";
import { test } from "node:test";
import { Netns } from "../../src/kernel/index.ts";
import { needs } from "../needs.ts";
import { IpMonitor, ip } from "./scenes/ip.ts";

const changes = [
  { says: "a link", command: "link set br0 mtu 1400" },
  { says: "an address", command: "address add 10.1.0.1/24 dev br0" },
  { says: "a route that is no default route", command: "route add 10.2.0.0/16 dev br0" },
  { says: "a route of another table", command: "-6 route add fd00::/64 dev br0 table 77" },
  { says: "a rule", command: "rule add from 10.1.0.1 lookup 77" },
  { says: "a rule of IPv6", command: "-6 rule add from fd00::1 lookup 77" },
  { says: "a permanent neighbour", command: "neighbour add 10.1.0.9 lladdr 02:00:00:00:00:09 dev br0 nud permanent" },
];

test("IpMonitor.news() has each change that a forwarder can make of a namespace, and none twice", async (t) => {
  if (!needs(t, "root", "netns", "bridge")) return;
  const netns = Netns.create();
  const monitor = new IpMonitor(netns);
  t.after(async () => {
    await monitor.close();
    netns.close();
  });
  await monitor.news();
  await ip(netns, "link add br0 type bridge");
  await ip(netns, "link set br0 up");
  for (const { says, command } of changes) {
    await monitor.news();
    await ip(netns, command);
    assert.notDeepEqual(await monitor.news(), [], says);
    assert.deepEqual(await monitor.news(), [], says);
  }
});
