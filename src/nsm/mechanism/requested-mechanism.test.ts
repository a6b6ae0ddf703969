import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { MechanismSchema } from "../../gen/connection_pb.ts";
import { NetworkServiceRequestSchema } from "../../gen/networkservice_pb.ts";
import { parseInodeUrl } from "./inode-url.ts";
import { isSameDesired, mechanismChoices } from "./requested-mechanism.ts";

const token = "sriov-01234567-89ab-cdef-0123-456789abcdef";
const kernel = { inodeURL: "inode://4/4026533012", name: "nsm-1", tokenID: token };

test("mechanismChoices() reads a kernel mechanism", () => {
  const [desired] = read("KERNEL", kernel);
  const netns = { text: "inode://4/4026533012", dev: 4n, ino: 4026533012n };
  assert.deepEqual(desired, { type: "KERNEL", tokenId: token, interfaceName: "nsm-1", netns, bare: false });
});

test("mechanismChoices() takes KERNEL_INTERFACE for KERNEL, and a VLAN parameter for a bare interface", () => {
  const [desired] = read("KERNEL_INTERFACE", { ...kernel, vlan: "7" });
  assert.equal(desired?.type === "KERNEL" && desired.bare, true);
});

test("mechanismChoices() takes a VLAN of no tag for none, as the original does", () => {
  for (const [vlan, bare] of [
    ["0", false],
    ["1", true],
    ["4095", true],
    ["4096", false],
    ["-1", false],
    ["x", false],
  ] as const) {
    const [desired] = read("KERNEL", { ...kernel, vlan });
    assert.equal(desired?.type === "KERNEL" && desired.bare, bare, vlan);
  }
});

test("mechanismChoices() keeps the order of the preferences and skips types that it does not know", () => {
  const types = ["MEMIF", "VFIO", "VXLAN", "NOOP", "KERNEL"];
  const request = create(NetworkServiceRequestSchema, { mechanismPreferences: types.map((type) => ({ type })) });
  assert.deepEqual(
    mechanismChoices(request).map(({ mechanism }) => mechanism.type),
    ["VFIO", "NOOP", "KERNEL"],
  );
});

test("mechanismChoices() goes by the connection's own mechanism when it has one", () => {
  const request = create(NetworkServiceRequestSchema, {
    connection: { mechanism: { type: "NOOP" } },
    mechanismPreferences: [{ type: "KERNEL" }],
  });
  assert.deepEqual(
    mechanismChoices(request).map(({ mechanism }) => mechanism.type),
    ["NOOP"],
  );
});

const refused: readonly (readonly [says: string, parameters: Record<string, string>, text: RegExp])[] = [
  ["no token", { ...kernel, tokenID: "" }, /device token \(tokenID\) "": want/],
  ["a token of another form, and hides it", { ...kernel, tokenID: "sriov-short-secret" }, /\(tokenID\) "\(hidden\)"/],
  ["no interface name", { ...kernel, name: "" }, /interface name/],
  ["an interface name that is too long", { ...kernel, name: "a234567890123456" }, /interface name/],
  ["an interface name that is a path", { ...kernel, name: "../eth0" }, /interface name/],
  ["an interface name that is a pattern", { ...kernel, name: "eth%d" }, /interface name/],
  ["the interface name ..", { ...kernel, name: ".." }, /interface name/],
  ["an interface name that stands for all interfaces", { ...kernel, name: "all" }, /interface name/],
  ["no namespace", { ...kernel, inodeURL: "" }, /network namespace \(inodeURL\)/],
  ["a namespace by path", { ...kernel, inodeURL: "file:///proc/1/ns/net" }, /want inode:/],
  ["a namespace of another scheme", { ...kernel, inodeURL: "x://y" }, /want inode:/],
];

for (const [says, parameters, text] of refused) {
  test(`mechanismChoices() refuses ${says}`, () => {
    assert.throws(
      () => read("KERNEL", parameters),
      (error: Error) => text.test(error.message) && !error.message.includes("secret"),
    );
  });
}

const urls = [
  "inode://4/",
  "inode:///5",
  "inode://4/5/6",
  "inode://4/5?x",
  "inode://-1/5",
  "inode://4/18446744073709551616",
  " inode://4/5",
];
for (const url of urls) {
  test(`parseInodeUrl() refuses ${JSON.stringify(url)}`, () => {
    assert.throws(() => parseInodeUrl(url, "it"), /Cannot use it/);
  });
}

test("parseInodeUrl() reads numbers of 64 bits exactly", () => {
  const { dev, ino } = parseInodeUrl("inode://18446744073709551615/9007199254740993", "it");
  assert.deepEqual([dev, ino], [18446744073709551615n, 9007199254740993n]);
});

test("isSameDesired() sees a change of each part", () => {
  const [before] = read("KERNEL", kernel);
  assert.ok(before);
  const same = (parameters: Record<string, string>) =>
    read("KERNEL", parameters).map((now) => isSameDesired(before, now));
  assert.deepEqual(same({ ...kernel, extra: "x" }), [true]);
  assert.deepEqual(same({ ...kernel, name: "nsm-2" }), [false]);
  assert.deepEqual(same({ ...kernel, inodeURL: "inode://4/5" }), [false]);
  assert.deepEqual(same({ ...kernel, tokenID: token.replace("0", "1") }), [false]);
  assert.deepEqual(same({ ...kernel, vlan: "7" }), [false]);
  assert.equal(isSameDesired(before, { type: "NOOP" }), false);
  const vfio = { type: "VFIO", tokenId: token, cgroupDir: "/pod" } as const;
  const others = [{ ...vfio }, { ...vfio, cgroupDir: "/other" }, { ...vfio, tokenId: "another" }];
  assert.deepEqual(
    others.map((other) => isSameDesired(vfio, other)),
    [true, false, false],
  );
});

function read(type: string, parameters: Record<string, string>) {
  const mechanism = create(MechanismSchema, { cls: "LOCAL", type, parameters });
  const request = create(NetworkServiceRequestSchema, { mechanismPreferences: [mechanism] });
  return mechanismChoices(request).map((choice) => choice.read());
}
