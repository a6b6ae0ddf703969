import assert from "node:assert/strict";
import { test } from "node:test";
import { Errno, KernelError, type RawAttribute, type RawLink } from "../kernel/index.ts";
import { ETHTOOL_KINDS } from "./ethtool-settings.ts";
import { LinkAttribute } from "./link-setting-names.ts";
import { settingsOf } from "./link-settings.ts";

const PROMISC = 0x100;
const number = (type: number, value: number): RawAttribute => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return { type, value: bytes };
};
const raw = (more: Partial<RawLink>): RawLink => ({
  name: "eth1",
  flags: 0,
  attributes: [],
  ethtool: new Map(),
  ...more,
});
const command = (name: string) => ETHTOOL_KINDS.find((kind) => kind.name === name)?.get ?? assert.fail(name);
const refusing = (name: string, code: keyof typeof Errno) =>
  raw({ ethtool: new Map([[command(name), new KernelError("ask the driver", Errno[code])]]) });

test("settingsOf() names who else has a link take all packets, besides its own flag", () => {
  const users = (count: number, flags: number) =>
    settingsOf(raw({ flags, attributes: [number(LinkAttribute.PROMISCUITY, count)] }));
  assert.deepEqual(users(0, 0), {});
  assert.deepEqual(users(1, PROMISC), { "flag promisc": "on" });
  assert.deepEqual(users(2, PROMISC), { "flag promisc": "on", "promisc users": "1" });
  assert.deepEqual(users(1, 0), { "promisc users": "1" });
});

test("settingsOf() takes a driver's no for its answer, but not what it says while it cannot", () => {
  assert.deepEqual(settingsOf(refusing("rings", "EOPNOTSUPP")), { rings: "EOPNOTSUPP" });
  for (const code of ["ENODEV", "EBUSY", "EAGAIN", "EINTR", "ENOBUFS", "ENOMEM"] as const) {
    assert.throws(() => settingsOf(refusing("rings", code)), { code });
  }
});

test("settingsOf() says nothing where an ioctl has answered and netlink does not, and else that netlink has", () => {
  assert.deepEqual(settingsOf(refusing("rss", "EOPNOTSUPP")), {});
  const answer = [number(3, 1), number(99, 2)];
  const found = settingsOf(raw({ ethtool: new Map([[command("rss"), answer]]) }));
  assert.deepEqual(found, { rss: "by netlink", "rss hfunc": "u32 1", "rss 99": "u32 2" });
});
