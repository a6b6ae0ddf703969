// When this kernel says that a link has given up a name.
import assert from "node:assert/strict";
import { test } from "node:test";
import { TakenNames } from "../../src/reconcile/taken-names.ts";
import { ip } from "../sandbox/scenes/ip.ts";
import { inWorld } from "../scenes/namespaces.ts";
import { until } from "../scenes/until.ts";

for (const [what, take, giveUp] of [
  ["is removed", "link add wanted type bridge", "link del wanted"],
  ["is renamed", "link add wanted type bridge", "link set wanted name other"],
  // Of one that is down the kernel says nothing (netdev_state_change, net/core/dev.c): the next pass sees it.
  [
    "is up and loses an alternative name",
    "link property add dev vf0 altname wanted",
    "link property del dev vf0 altname wanted",
  ],
] as const) {
  test(`TakenNames hears of a link that ${what}, and sees that the name is free then`, (t) =>
    inWorld(t, async ({ host, links }) => {
      let news = 0;
      const names = new TakenNames(links, () => {
        news += 1;
      });
      await ip(host.netns, "link set vf0 up");
      await ip(host.netns, take);
      assert.equal(await names.isFree("wanted", 0), false);
      await ip(host.netns, giveUp);
      await until("there is news", async () => news > 0);
      assert.equal(await names.isFree("wanted", 0), true);
      names.close();
    }));
}
