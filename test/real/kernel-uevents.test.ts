import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { type TestContext, test } from "node:test";
import { inNetns, KernelSocket, Netns, openUevents, Rtnl, type Uevent } from "../../src/kernel/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { recordingLog } from "../../src/telemetry/recording-log.ts";
import { needs } from "../needs.ts";
import { until } from "../scenes/until.ts";

function listen(t: TestContext) {
  const netns = Netns.create();
  const seen: Uevent[] = [];
  const uevents = openUevents(recordingLog(), netns);
  const stop = uevents.subscribe((event) => seen.push(event));
  t.after(() => {
    uevents.close();
    netns.close();
  });
  return { netns, seen, stop, uevents };
}

const ip = (netns: Netns, ...words: readonly string[]) =>
  assert.equal(inNetns(netns, () => spawnSync("ip", words)).status, 0);

test("openUevents() hears of a device that is made, renamed and removed", async (t) => {
  if (!needs(t, "root", "veth")) return;
  const { netns, seen, stop, uevents } = listen(t);
  ip(netns, "link", "add", "name", "v0", "type", "veth", "peer", "name", "v1");
  ip(netns, "link", "set", "v0", "name", "green");
  ip(netns, "link", "delete", "green");
  const has = (action: string, name: string) => () =>
    seen.some((event) => event.action === action && event.subsystem === "net" && event.fields["INTERFACE"] === name);
  await until("v0 is added", has("add", "v0"));
  await until("v0 becomes green", has("move", "green"));
  await until("v1 is removed", has("remove", "v1"));
  stop();
  const before = seen.length;
  const others: Uevent[] = [];
  uevents.subscribe((event) => others.push(event));
  ip(netns, "link", "add", "name", "v2", "type", "veth", "peer", "name", "v3");
  await until("v2 is reported to the other", () => others.some(({ fields }) => fields["INTERFACE"] === "v2"));
  assert.equal(seen.length, before, "who has stopped hears nothing of what others hear");
});

test("openUevents() believes the kernel alone", async (t) => {
  if (!needs(t, "root", "veth")) return;
  const { netns, seen } = listen(t);
  const liar = KernelSocket.open({ domain: 16, type: 3, protocol: 15 }, netns);
  t.after(() => liar.close());
  const group = Buffer.alloc(12);
  group.writeUInt16LE(16, 0);
  group.writeUInt32LE(1, 8);
  liar.send(Buffer.from("remove@/devices/pci0000:00/0000:00:03.0\0ACTION=remove\0SUBSYSTEM=pci\0"), group);
  ip(netns, "link", "add", "name", "v0", "type", "veth", "peer", "name", "v1");
  await until("v0 is reported", () => seen.some(({ devpath }) => devpath === "/devices/virtual/net/v0"));
  assert.deepEqual(
    seen.filter(({ subsystem }) => subsystem === "pci"),
    [],
  );
});

test("openUevents() says when events were lost, and continues", async (t) => {
  if (!needs(t, "root", "veth")) return;
  const { netns, seen } = listen(t);
  const script = Array.from({ length: 60 }, (_, i) => `link add name v${i} type veth peer name w${i}\n`).join("");
  const small = openUevents(recordingLog(), netns, { receiveBufferBytes: 4096 });
  const few: Uevent[] = [];
  small.subscribe((event) => few.push(event));
  t.after(() => small.close());
  assert.equal(inNetns(netns, () => spawnSync("ip", ["-batch", "-"], { input: script })).status, 0);
  await until("the loss is reported", () => few.some(({ action }) => action === "lost"));
  ip(netns, "link", "add", "name", "last", "type", "veth", "peer", "name", "tsal");
  await until("the last link is reported", () => few.some(({ devpath }) => devpath === "/devices/virtual/net/last"));
  assert.equal(seen.filter(({ action }) => action === "lost").length, 0);
});

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
