import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { ChangeWatch } from "../../sandbox/nic/change-watch.ts";
import { Netns, Rtnl } from "../../src/kernel/index.ts";
import { needs } from "../needs.ts";

/** A network namespace of its own, watched as "pod". */
function watchedPod(t: TestContext) {
  const netns = Netns.create();
  const rtnl = Rtnl.open({ netns });
  const changes = new ChangeWatch();
  t.after(() => {
    changes.close();
    rtnl.close();
    netns.close();
  });
  changes.watchNetns("pod", netns);
  return { rtnl, changes };
}

test("ChangeWatch.hasHeardAll() has every change written down that came before, and none of its own", async (t) => {
  if (!needs(t, "netns", "bridge")) return;
  const { rtnl, changes } = watchedPod(t);
  for (let count = 0; count < 20; count++) {
    await rtnl.createLink({ kind: "bridge", name: `br${count}` });
    await changes.hasHeardAll();
    assert.ok(changes.seen.includes(`pod: new-link br${count}`), changes.seen.join());
    changes.forget();
    await changes.hasHeardAll();
    assert.deepEqual(changes.seen, []);
  }
});

test("ChangeWatch leaves out the link-local addresses that the kernel gives", async (t) => {
  if (!needs(t, "netns", "bridge")) return;
  const { rtnl, changes } = watchedPod(t);
  await rtnl.createLink({ kind: "bridge", name: "br0" });
  const { index: ifindex } = (await rtnl.linkByName("br0")) ?? assert.fail();
  await changes.hasHeardAll();
  changes.forget();
  for (const address of ["fe80::1", "2001:db8::1"]) await rtnl.addAddress({ ifindex, address, prefixLength: 64 });
  await changes.hasHeardAll();
  assert.deepEqual(changes.seen, ["pod: new-address 2001:db8::1"]);
});
