import assert from "node:assert/strict";
import { test } from "node:test";
import { ping, pingUntilAnswered } from "../../sandbox/network/ping.ts";
import { Pod } from "../../sandbox/pod/pod.ts";
import { systemClock } from "../../src/async/index.ts";
import { needs } from "../needs.ts";

test("ping() gets its answer inside a namespace, and none from an address without a host", async (t) => {
  if (!needs(t, "netns")) return;
  const pod = new Pod("pinger");
  t.after(() => pod.close());
  const options = { netns: pod.netns, clock: systemClock };
  await assert.rejects(ping({ ...options, to: "127.0.0.1" }), { code: "ENETUNREACH" });
  await pod.withRtnl(async (rtnl) => rtnl.setLink(1, { up: true })); // the loopback is always link 1
  assert.equal(typeof (await ping({ ...options, to: "127.0.0.1" })), "number");
  assert.equal(typeof (await ping({ ...options, to: "::1" })), "number");
});

test("Pod.links() reports what the pod sees of a link, and two pods ping each other over it", async (t) => {
  if (!needs(t, "netns", "veth")) return;
  const [one, other] = [new Pod("one"), new Pod("other")];
  t.after(() => {
    one.close();
    other.close();
  });
  await one.withRtnl((rtnl) =>
    rtnl.createLink({ kind: "veth", name: "nsm-1", mtu: 1400, peer: { name: "wire", netns: other.netns } }),
  );
  await one.takeLink("nsm-1", ["172.16.1.1/32"], ["172.16.1.0/32"]);
  await other.takeLink("wire", ["172.16.1.0/32"], ["172.16.1.1/32"]);
  const link = await one.link("nsm-1");
  assert.deepEqual(
    { up: link?.up, mtu: link?.mtu, addresses: link?.addresses, routes: link?.routes },
    { up: true, mtu: 1400, addresses: ["172.16.1.1/32"], routes: ["172.16.1.0/32"] },
  );
  assert.equal(
    typeof (await pingUntilAnswered({ netns: one.netns, to: "172.16.1.0", tries: 5, clock: systemClock })),
    "number",
  );
  assert.equal(await one.link("nsm-2"), undefined);
});
