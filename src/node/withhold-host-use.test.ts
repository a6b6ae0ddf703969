import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type WatchedNodeOptions, watchedNode } from "../../test/scenes/watched-node.ts";
import { type Address, Errno, KernelError } from "../kernel/index.ts";
import { parsePciAddress, parsePfConfig } from "../pci/index.ts";

const [first, second] = [parsePciAddress("01:10.0"), parsePciAddress("01:10.2")];

/** A node whose links get addresses by their names. */
async function opened(t: TestContext, options: WatchedNodeOptions = {}) {
  const paper = await watchedNode(t, options);
  const { netlink } = paper;
  const { node, close } = await paper.open();
  const { inventory, hostUse } = node;
  const indexOf = (name: string) => netlink.links.find((link) => link.name === name)?.index ?? assert.fail(name);
  const use = (...names: readonly string[]) => {
    netlink.addresses = names.map(
      (name) => ({ ifindex: indexOf(name), address: "10.0.0.9", prefixLength: 24 }) as Address,
    );
  };
  const howOf = (address: typeof first) =>
    inventory.get(address)?.conditions.flatMap((one) => (one.code === "host-use" ? one.how : []));
  return { ...paper, node, inventory, hostUse, close, use, indexOf, howOf };
}

const WORDS = "enp1s0f0v0 has address 10.0.0.9/24; to end that: ip address del 10.0.0.9/24 dev enp1s0f0v0";

test("look() withholds what the host uses until it does not any more, and knows whose the links are", async (t) => {
  const { hostUse, use, indexOf, howOf, log, close } = await opened(t);
  use("enp1s0f0v0");
  assert.equal(await hostUse.observe(), false, "no PF is used");
  assert.deepEqual([howOf(first), howOf(second)], [[WORDS], []]);
  assert.equal(await hostUse.observe(), false);
  assert.equal(log.of("vf-withheld").length, 1);
  assert.deepEqual(hostUse.links.get(indexOf("enp1s0f0v0")), { address: first, hasMaster: false });
  assert.equal(hostUse.links.size, 3);
  use();
  await hostUse.observe();
  assert.deepEqual(howOf(first), []);
  assert.equal(log.events.filter(({ event }) => /offered/.test(event)).length, 1);
  await close();
});

test("look() says once that a PF is used, or not any more, also where it has left the list", async (t) => {
  const { pf, file, node, hostUse, use, quiet, close } = await opened(t);
  use("enp1s0f0");
  assert.deepEqual([await hostUse.observe(), await hostUse.observe()], [true, false]);
  assert.equal(hostUse.ofPf(pf), "enp1s0f0 has address 10.0.0.9/24");
  use();
  assert.deepEqual([await hostUse.observe(), await hostUse.observe(), hostUse.ofPf(pf)], [true, false, undefined]);
  use("enp1s0f0");
  assert.equal(await hostUse.observe(), true);
  file.write("physicalFunctions: {}\n");
  node.survey.reconfigure({ physicalFunctions: [] });
  await node.survey.observe();
  await quiet(0);
  assert.deepEqual([await hostUse.observe(), hostUse.ofPf(pf)], [true, undefined]);
  await close();
});

test("what a connection holds is observed when it is free again", async (t) => {
  const { inventory, hostUse, use, howOf, close } = await opened(t);
  const tokenId = inventory.devicesOf("worker.domain/intel").find(({ address }) => address === first)?.id ?? "";
  inventory.raise(first, { code: "host-use", how: "as it was before" });
  const observe = hostUse.observe();
  inventory.clear(first, "host-use");
  inventory.take({ connectionId: "c1", tokenId, use: "kernel" });
  use("enp1s0f0v0");
  await observe;
  await hostUse.observe();
  assert.deepEqual(howOf(first), []);
  inventory.release("c1");
  assert.deepEqual(howOf(first), [], "not before it is looked at");
  await hostUse.observe();
  assert.deepEqual(howOf(first), [WORDS]);
  await close();
});

test("what was found of a VF right before a connection got it holds until it is free and looked at again", async (t) => {
  const { inventory, hostUse, use, howOf, close } = await opened(t);
  const tokenId = inventory.devicesOf("worker.domain/intel").find(({ address }) => address === first)?.id ?? "";
  inventory.take({ connectionId: "c1", tokenId, use: "kernel" });
  use("enp1s0f0v0");
  await assert.rejects(hostUse.refuse(first), { fault: { kind: "host-uses-it", how: WORDS } });
  await hostUse.observe();
  inventory.release("c1");
  assert.deepEqual(howOf(first), [WORDS]);
  await close();
});

test('"hostUse: create-vfs" lets VFs be made, and gives none of them away that the host uses', async (t) => {
  const { file, node, hostUse, use, howOf, close } = await opened(t);
  node.survey.reconfigure(parsePfConfig(`${file.text.trimEnd()}\n    hostUse: create-vfs\n`, "pci.config"));
  await node.survey.observe();
  use("enp1s0f0v0");
  await hostUse.observe();
  assert.deepEqual(howOf(first), [WORDS]);
  await assert.rejects(hostUse.refuse(first), { fault: { kind: "host-uses-it", how: WORDS } });
  await close();
});

test("refuse() observes again, and what it finds is known from then on", async (t) => {
  const { hostUse, use, howOf, close } = await opened(t);
  await hostUse.refuse(first);
  use("enp1s0f0v0");
  await assert.rejects(hostUse.refuse(first), { fault: { kind: "host-uses-it", how: WORDS } });
  assert.deepEqual(howOf(first), [WORDS]);
  await hostUse.refuse(second);
  await close();
});

test("what the host is not seen to use while links come and go is not given away, and what it used is still withheld", async (t) => {
  const { pf, node, netlink, hostUse, use, howOf, log, close } = await opened(t);
  const found = node.survey.pfs.get(pf) ?? assert.fail();
  use("enp1s0f0v0", "enp1s0f0");
  assert.deepEqual([await hostUse.observe(), hostUse.isInDoubt], [true, false]);
  netlink.doubt = new KernelError("list the links", Errno.EINTR);
  netlink.addresses = [];
  assert.deepEqual([await hostUse.observe(), hostUse.isInDoubt], [false, true]);
  assert.deepEqual([howOf(first), hostUse.ofPf(pf)], [[WORDS], "enp1s0f0 has address 10.0.0.9/24"]);
  await assert.rejects(hostUse.refuse(first), netlink.doubt);
  await assert.rejects(
    hostUse.refuseCreation({ ...found, entry: { ...found.entry, hostUse: "withhold" } }),
    netlink.doubt,
  );
  netlink.links = [];
  await assert.rejects(hostUse.refuse(second), netlink.doubt, "its link may be what is hidden");
  await hostUse.observe();
  assert.deepEqual([howOf(first), log.of("vf-offered-again")], [[WORDS], []]);
  netlink.doubt = undefined;
  assert.deepEqual([await hostUse.observe(), hostUse.isInDoubt, howOf(first)], [true, false, []]);
  await hostUse.refuse(first);
  await close();
});

test("a use that is seen is one, though links come and go", async (t) => {
  const { netlink, hostUse, use, howOf, close } = await opened(t);
  netlink.doubt = new KernelError("list the links", Errno.EINTR);
  use("enp1s0f0v0");
  await hostUse.observe();
  assert.deepEqual([howOf(first), howOf(second)], [[WORDS], []]);
  await assert.rejects(hostUse.refuse(first), { fault: { kind: "host-uses-it", how: WORDS } });
  await close();
});

test('"hostUse: allow" gives away what the host uses, from the list on that says so', async (t) => {
  const { pf, file, node, hostUse, use, howOf, close } = await opened(t);
  use("enp1s0f0v0");
  await hostUse.observe();
  const allowing = parsePfConfig(`${file.text.trimEnd()}\n    hostUse: allow\n`, "pci.config");
  node.survey.reconfigure(allowing);
  await node.survey.observe();
  await hostUse.observe();
  assert.deepEqual(howOf(first), []);
  await hostUse.refuse(first);
  assert.equal(hostUse.ofPf(pf), undefined);
  await close();
});

test("refuseCreation() keeps VFs from a used PF only where the list does not allow it", async (t) => {
  const { pf, node, hostUse, use, close } = await opened(t);
  const found = node.survey.pfs.get(pf) ?? assert.fail();
  const requested = (rule: "withhold" | "create-vfs" | "allow") =>
    hostUse.refuseCreation({ ...found, entry: { ...found.entry, hostUse: rule } });
  assert.equal(await requested("withhold"), undefined);
  use("enp1s0f0");
  assert.match((await requested("withhold")) ?? "", /for the host uses it: enp1s0f0 has address/);
  assert.deepEqual([await requested("create-vfs"), await requested("allow")], [undefined, undefined]);
  await close();
});

test("openNode() knows on return what the host uses, binds nothing of it, and no group of which one is quarantined", async (t) => {
  const paper = await watchedNode(t, { iommu: "pairs" });
  const own = paper.netlink.links.find(({ name }) => name === "enp1s0f0v0") ?? assert.fail();
  paper.netlink.addresses = [{ ifindex: own.index, address: "10.0.0.9", prefixLength: 24 } as Address];
  const seen = { codes: [] as (readonly string[] | undefined)[] };
  const { node, close } = await paper.open({
    between: (opening) => seen.codes.push(opening.inventory.get(first)?.conditions.map(({ code }) => code)),
  });
  assert.deepEqual(seen.codes, [["host-use"]]);
  const vf = { address: first, kernelDriver: "igbvf" };
  await assert.rejects(node.binder.bind(vf, "vfio"), { fault: { kind: "host-uses-it", how: WORDS } });
  paper.netlink.addresses = [];
  node.inventory.raise(second, { code: "write-stuck", error: "it hangs" });
  await assert.rejects(node.binder.bind(vf, "vfio"), /0000:01:10.2/);
  node.inventory.clear(second, "write-stuck");
  await node.binder.bind(vf, "vfio");
  assert.deepEqual(
    [first, second].map((address) => node.inventory.get(address)?.driver),
    ["vfio-pci", "vfio-pci"],
  );
  await close();
});

test("openNode() makes its tokens of a secret that outlives it, and another one where that cannot be one", async (t) => {
  const paper = await watchedNode(t);
  const tokens = async () => {
    const { node, close } = await paper.open();
    await close();
    return node.inventory.devicesOf("worker.domain/intel").map(({ id }) => id);
  };
  const before = await tokens();
  assert.deepEqual(await tokens(), before);
  paper.state.set("token-namespace", "not a secret\n");
  const after = await tokens();
  assert.ok(!after.some((id) => before.includes(id)));
  assert.deepEqual(await tokens(), after);
});

test("openNode() refuses to begin where the secret of its tokens cannot be kept", async (t) => {
  const paper = await watchedNode(t);
  paper.state.set = () => {
    throw new Error("the disk is full");
  };
  await assert.rejects(paper.open(), /the disk is full/);
});
