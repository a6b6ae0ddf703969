import assert from "node:assert/strict";
import { test } from "node:test";
import { Netns, openUevents, Rtnl, type Uevent } from "../../src/kernel/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { needs } from "../needs.ts";

test("openUevents() hears of a network device that comes and goes", async (t) => {
  if (!needs(t, "root")) return;
  const netns = Netns.create();
  const source = openUevents(silentLog, netns);
  const rtnl = Rtnl.open({ netns });
  const heard: Uevent[] = [];
  const gone = Promise.withResolvers<void>();
  source.subscribe((event) => {
    if (event.fields["INTERFACE"] !== "va") return;
    heard.push(event);
    if (event.action === "remove") gone.resolve();
  });
  await rtnl.createLink({ kind: "veth", name: "va", peer: { name: "vb" } });
  const link = await rtnl.linkByName("va");
  assert.ok(link);
  await rtnl.deleteLink(link.index);
  await gone.promise;
  assert.deepEqual(
    heard.map(({ action, subsystem }) => `${action} ${subsystem}`),
    ["add net", "remove net"],
  );
  rtnl.close();
  source.close();
  netns.close();
});
