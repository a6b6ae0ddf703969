import assert from "node:assert/strict";
import { test } from "node:test";
import { Errno, KernelError, type LinkWrite } from "../kernel/index.ts";
import { type LinkSettings, linkDifferences } from "./link-settings.ts";
import { plannedWrites, restoreBy } from "./restore-link-settings.ts";

test("linkDifferences() compares text by text, also of what is there on one side only", () => {
  const before = { txqueuelen: "u32 1000", group: "u32 0", "attribute 99": "bytes " };
  const after = { txqueuelen: "u32 7", group: "u32 0", "xdp skb": "program 5" };
  assert.deepEqual(linkDifferences(before, after), [
    { setting: "txqueuelen", before: "u32 1000", after: "u32 7" },
    { setting: "attribute 99", before: "bytes ", after: undefined },
    { setting: "xdp skb", before: undefined, after: "program 5" },
  ]);
});

test("linkDifferences() takes only more users of all packets for a difference", () => {
  const users = (count?: string): LinkSettings => (count === undefined ? {} : { "promisc users": count });
  const counts = [
    [undefined, "1", 1],
    ["1", "2", 1],
    ["2", "1", 0],
    ["1", undefined, 0],
  ] as const;
  for (const [before, after, found] of counts) {
    assert.equal(linkDifferences(users(before), users(after)).length, found);
  }
});

const textOf = (write: LinkWrite): string => {
  if (write.kind === "xdp-off") return `xdp-off ${write.mode}`;
  if (write.kind === "altname") return `${write.action} ${write.name}`;
  const attributes = (write.attributes ?? []).map(({ type, value }) => `${type}=${value.toString("hex")}`);
  if (write.kind === "ethtool") return `ethtool ${write.command} ${attributes.join(" ")}`;
  const { flags } = write;
  return flags ? `flags ${flags.value.toString(16)}/${flags.mask.toString(16)}` : `link ${attributes.join(" ")}`;
};

test("plannedWrites() writes what differs and can be written: XDP off first, names away before others are given", () => {
  const before = {
    "flag multicast": "on",
    txqueuelen: "u32 1000",
    "altname uplink": "on",
    "channels rx": "u32 4",
    "channels tx": "u32 4",
    "rings max rx": "u32 4096",
    "features requested": "bytes 0400010008000200200000000800040011000000",
  };
  const after = {
    "flag promisc": "on",
    "flag 30": "on",
    txqueuelen: "u32 7",
    alias: "text x",
    "altname docker0": "on",
    "xdp drv": "program 5",
    "tcx ingress": "program 6",
    "attribute 99": "u32 1",
    "channels rx": "u32 2",
    "channels tx": "u32 1",
    "rings max rx": "u32 1024",
    "features requested": "bytes 0400010008000200200000000800040001000000",
  };
  assert.deepEqual(
    plannedWrites(linkDifferences(before, after)).map(({ write }) => textOf(write)),
    [
      "xdp-off drv",
      "flags 1000/1100",
      "link 13=e8030000",
      "link 20=",
      "remove docker0",
      "add uplink",
      "ethtool 18 6=04000000 7=04000000",
      // Size 32, the value, and of the bits only the one that differs.
      "ethtool 12 3=080002002000000008000400110000000800050010000000",
    ],
  );
});

test("plannedWrites() gives no program back, and sets nothing that the driver did not have, or has no more", () => {
  const before = { "xdp skb": "program 5", coalesce: "EOPNOTSUPP", "rings rx": "u32 4" };
  const after = { "coalesce rx-usecs": "u32 1", rings: "EOPNOTSUPP" };
  assert.deepEqual(plannedWrites(linkDifferences(before, after)), []);
});

test("restoreBy() tries again what waited for another setting, reads back, and says what was refused", async () => {
  const before = { txqueuelen: "u32 1000", group: "u32 0", mode: "u8 0" };
  let now: LinkSettings = { ...before, txqueuelen: "u32 7", group: "u32 5", "xdp skb": "program 5" };
  const written: string[] = [];
  const refusal = new KernelError("set the group", Errno.EPERM);
  const write = async (writes: readonly LinkWrite[]) => {
    written.push(writes.map(textOf).join("; "));
    const { "xdp skb": program, ...rest } = now;
    // Only without the program it takes the length; the group never.
    now = program === undefined ? { ...rest, txqueuelen: "u32 1000" } : rest;
    return writes.map((one) => (textOf(one).startsWith("link 27=") ? refusal : undefined));
  };
  const { restored, remaining } = await restoreBy({ read: async () => now, write }, before);
  assert.deepEqual(written, ["xdp-off skb; link 13=e8030000; link 27=00000000", "link 13=e8030000; link 27=00000000"]);
  assert.deepEqual(
    restored.map(({ setting }) => setting),
    ["txqueuelen", "xdp skb"],
  );
  assert.deepEqual(remaining, [{ setting: "group", before: "u32 0", after: "u32 5", error: refusal }]);
});

test("restoreBy() writes nothing where nothing that differs can be written", async () => {
  const read = async () => ({ kind: "text veth" });
  const { restored, remaining } = await restoreBy({ read, write: async () => assert.fail("it writes") }, {});
  assert.deepEqual(restored, []);
  assert.deepEqual(remaining, [{ setting: "kind", before: undefined, after: "text veth", error: undefined }]);
});
