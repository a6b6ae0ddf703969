import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type Machine, type MachineOptions, startMachine } from "../../sandbox/machine/machine.ts";
import { isAnsweredBefore, pingUntilAnswered } from "../../sandbox/network/ping.ts";
import { systemClock } from "../../src/async/index.ts";
import { Netns, Rtnl } from "../../src/kernel/index.ts";
import { parsePciAddress } from "../../src/pci/index.ts";
import { driverBindingContracts } from "../contracts/driver-binding.ts";
import { sysfsContracts } from "../contracts/sysfs.ts";
import { vfSettingsContracts } from "../contracts/vf-settings.ts";
import { needs } from "../needs.ts";
import { ip } from "../sandbox/scenes/ip.ts";
import { openPlace, type Place } from "../scenes/namespaces.ts";

const pf = { address: "0000:01:00.0" };

async function withMachine(
  t: TestContext,
  options: MachineOptions,
  run: (machine: Machine, host: Rtnl) => Promise<void>,
) {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const machine = await startMachine({ realLinks: true, pfs: 1, vfsPerPf: 2, ...options });
  const host = Rtnl.open({ netns: machine.netns });
  try {
    await run(machine, host);
  } finally {
    host.close();
    await machine.stop();
  }
}

/** Moves the network device of a VF to a new namespace, as a client's interface nsm-1 with this address. */
async function toPod(machine: Machine, host: Rtnl, to: { readonly vf: string; readonly ip: string }): Promise<Place> {
  const [ifname = ""] = await machine.devices.list(`${to.vf}/net`);
  const link = await host.linkByName(ifname);
  assert.ok(link, `${ifname} of ${to.vf} is not in the host's namespace`);
  const pod = openPlace();
  await host.setLink(link.index, { netns: pod.netns, name: "nsm-1" });
  const moved = await pod.rtnl.linkByName("nsm-1");
  assert.ok(moved);
  await pod.rtnl.addAddress({ ifindex: moved.index, address: to.ip, prefixLength: 24 });
  await pod.rtnl.setLink(moved.index, { up: true });
  return pod;
}

function closePlace(place: Place): void {
  place.rtnl.close();
  place.netns.close();
}

for (const [sentence, contract] of Object.entries({ ...driverBindingContracts, ...sysfsContracts })) {
  test(`startMachine() with real links is as a kernel: ${sentence}`, (t) =>
    withMachine(t, {}, (machine) =>
      contract({ ...machine, pf: pf.address, vf: "0000:01:10.2", kernelDriver: "igbvf" }),
    ));
}

for (const [sentence, contract] of Object.entries(vfSettingsContracts)) {
  test(`startMachine() with real links keeps settings as igb does: ${sentence}`, (t) =>
    withMachine(t, {}, async (machine) => {
      const vf = "0000:01:10.2";
      const links = machine.openRtnl(machine.netns);
      const netdev = async () => {
        const [ifname = ""] = await machine.devices.list(`${vf}/net`);
        const link = await links.linkByName(ifname);
        assert.ok(link);
        return link;
      };
      const macOfNetdev = async () => (await netdev()).address ?? "";
      const setMacOfNetdev = async (address: string) => links.setLink((await netdev()).index, { address });
      const port = machine.pfPort(pf);
      const subject = { pf: pf.address, vf, index: 1, kernelDriver: "igbvf", port, macOfNetdev, setMacOfNetdev };
      await contract({ ...machine, ...subject }).finally(() => links.close());
    }));
}

test("startMachine() makes real links in a namespace of its own, and leaves none in ours", (t) =>
  withMachine(t, {}, async (machine, host) => {
    const names = (await host.links()).map(({ name }) => name).filter((name) => name.startsWith("enp"));
    assert.deepEqual(names.sort(), ["enp1s0f0", "enp1s0f0v0", "enp1s0f0v1"]);
    assert.deepEqual(
      [(await host.linkByName("enp1s0f0"))?.up, (await host.linkByName("enp1s0f0v0"))?.up],
      [true, false],
    );
    const own = Netns.current();
    const isOwn = own.isSame(machine.netns);
    own.close();
    assert.equal(isOwn, false);
    const link = await host.linkByName("enp1s0f0v1");
    assert.equal(await machine.devices.readText("0000:01:10.2/net/enp1s0f0v1/ifindex"), String(link?.index));
  }));

test("startMachine() carries packets between VFs of both adapters, and keeps VLANs apart", (t) =>
  withMachine(t, { pfs: 2 }, async (machine, host) => {
    const a = await toPod(machine, host, { vf: "0000:01:10.0", ip: "10.0.0.1" });
    const b = await toPod(machine, host, { vf: "0000:02:10.0", ip: "10.0.0.2" });
    const c = await toPod(machine, host, { vf: "0000:01:10.2", ip: "10.0.0.3" });
    const fromA = { netns: a.netns, to: "10.0.0.2", clock: systemClock };
    try {
      assert.ok((await pingUntilAnswered({ ...fromA, tries: 5 })) !== undefined, "no answer on one wire");
      for (const index of [0, 1]) await machine.pfPort(pf).write(index, { vlan: 100 });
      assert.equal(await isAnsweredBefore("10.0.0.3", fromA), false, "an answer from another VLAN");
      await machine.pfPort({ address: "0000:02:00.0" }).write(0, { vlan: 100 });
      assert.ok((await pingUntilAnswered({ ...fromA, tries: 5 })) !== undefined, "no answer on the same VLAN");
    } finally {
      for (const place of [a, b, c]) closePlace(place);
    }
  }));

test("startMachine() hides a device that lives elsewhere from sysfs, and takes it away by an unbind", (t) =>
  withMachine(t, {}, async (machine, host) => {
    const vf = "0000:01:10.0";
    const pod = await toPod(machine, host, { vf, ip: "10.0.0.1" });
    assert.deepEqual(await machine.devices.list(`${vf}/net`), []);
    assert.match(await machine.print(), /VF 0 .*elsewhere/);
    await machine.drivers.writeText("igbvf/unbind", vf);
    assert.equal(await pod.rtnl.linkByName("nsm-1"), undefined);
    await machine.drivers.writeText("igbvf/bind", vf);
    assert.deepEqual(await machine.devices.list(`${vf}/net`), ["enp1s0f0v0"]);
    closePlace(pod);
  }));

test("startMachine() gives the MAC of the physical function at the next bind, not before", (t) =>
  withMachine(t, {}, async (machine, host) => {
    const vf = "0000:01:10.0";
    await machine.pfPort(pf).write(0, { mac: "0a:55:44:33:22:11" });
    assert.notEqual((await host.linkByName("enp1s0f0v0"))?.address, "0a:55:44:33:22:11");
    await machine.drivers.writeText("igbvf/unbind", vf);
    await machine.drivers.writeText("igbvf/bind", vf);
    assert.equal((await host.linkByName("enp1s0f0v0"))?.address, "0a:55:44:33:22:11");
  }));

test("startMachine() gives a VF back whose client's namespace dies, under a name of the kernel's", (t) =>
  withMachine(t, {}, async (machine, host) => {
    const vf = "0000:01:10.0";
    const back = Promise.withResolvers<string>();
    machine.uevents.subscribe(({ action, devpath }) => {
      if (action === "add" && devpath.includes(`${vf}/net/`)) back.resolve(devpath.split("/").at(-1) ?? "");
    });
    closePlace(await toPod(machine, host, { vf, ip: "10.0.0.1" }));
    const ifname = await back.promise;
    assert.match(ifname, /^dev\d+$/);
    assert.deepEqual(await machine.devices.list(`${vf}/net`), [ifname]);
  }));

test("startMachine() takes another name when the host has a link of that name", (t) =>
  withMachine(t, {}, async (machine, host) => {
    await machine.drivers.writeText("igbvf/unbind", "0000:01:10.0");
    await host.createLink({ kind: "bridge", name: "enp1s0f0v0" });
    await machine.drivers.writeText("igbvf/bind", "0000:01:10.0");
    assert.deepEqual(await machine.devices.list("0000:01:10.0/net"), ["eth0"]);
  }));

test("startMachine() answers for the links that it made, wherever they are, and for no other of the same indexes", (t) =>
  withMachine(t, {}, async (machine, host) => {
    const vf = "0000:01:10.0";
    const link = await host.linkByName("enp1s0f0v0");
    assert.ok(link);
    const ownerIn = async (netns: Netns, index = link.index) => {
      const rtnl = Rtnl.open({ netns });
      try {
        const found = await rtnl.linkByIndex(index);
        assert.ok(found);
        return (await machine.linkOwnerOf({ netns }, found)).pciFunction;
      } finally {
        rtnl.close();
      }
    };
    assert.equal(await ownerIn(machine.netns), vf);
    const [foreign, peers] = [openPlace(), openPlace()];
    const there = `netns /proc/${process.pid}/fd/${peers.netns.fd.number}`;
    await ip(
      foreign.netns,
      `link add theirs index ${link.index} type veth peer name p index ${link.peerIndex} ${there}`,
    );
    assert.equal((await foreign.rtnl.linkByName("theirs"))?.peerIndex, link.peerIndex);
    assert.equal(await ownerIn(foreign.netns), undefined);
    assert.equal(await ownerIn(foreign.netns, 1), undefined);
    const pod = await toPod(machine, host, { vf, ip: "10.0.0.1" });
    const moved = await pod.rtnl.linkByName("nsm-1");
    assert.ok(moved);
    assert.equal(await ownerIn(pod.netns, moved.index), vf);
    assert.equal((await machine.linkOwnerOf({ netns: machine.netns }, moved)).pciFunction, undefined);
    for (const place of [foreign, peers, pod]) closePlace(place);
  }));

test("startMachine() finds the link of a physical function that was renamed, and that came back as another one", (t) =>
  withMachine(t, {}, async (machine, host) => {
    const place = { netns: machine.netns, rtnl: host };
    const address = parsePciAddress(pf.address);
    const link = await machine.pfLink(place, address);
    assert.equal(link?.name, "enp1s0f0");
    await host.setLink(link.index, { up: false });
    await host.setLink(link.index, { name: "renamed" });
    await host.createLink({ kind: "bridge", name: "enp1s0f0" });
    assert.equal((await machine.pfLink(place, address))?.index, link.index);
    await machine.drivers.writeText("igb/unbind", pf.address);
    assert.equal(await machine.pfLink(place, address), undefined);
    await machine.drivers.writeText("igb/bind", pf.address);
    const anew = await machine.pfLink(place, address);
    assert.ok(anew);
    assert.notEqual(anew.index, link.index);
    assert.notEqual(anew.kind, "bridge");
  }));
