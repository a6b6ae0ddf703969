import assert from "node:assert/strict";
import { test } from "node:test";
import { parseUevent } from "./uevents.ts";

// The form of lib/kobject_uevent.c; test/real/kernel-uevents.test.ts holds it against the running kernel.
const veth =
  "add@/devices/virtual/net/veth0\0ACTION=add\0DEVPATH=/devices/virtual/net/veth0\0SUBSYSTEM=net\0INTERFACE=veth0\0IFINDEX=2\0SEQNUM=1234\0";

test("parseUevent() reads action, path and fields of a kernel event", () => {
  const event = parseUevent(Buffer.from(veth));
  assert.deepEqual(
    [event?.action, event?.devpath, event?.subsystem, event?.fields["INTERFACE"]],
    ["add", "/devices/virtual/net/veth0", "net", "veth0"],
  );
});

test("parseUevent() ignores what is not from the kernel", () => {
  for (const text of ["libudev\0\xfe\xed", "", "@/devices\0", "\0\0"]) {
    assert.equal(parseUevent(Buffer.from(text)), undefined);
  }
});
