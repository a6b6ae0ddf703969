import assert from "node:assert/strict";
import { test } from "node:test";
import { Errno, type HostFiles, KernelError, type Uevent } from "../kernel/index.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { parsePciAddress } from "./address.ts";
import { createVfs, desiredVfs } from "./create-vfs.ts";
import type { PfEntry } from "./pf-config-form.ts";

const address = parsePciAddress("0000:01:00.0");

/** A PF of so many VFs, whose driver makes none by itself: the test puts `virtfnN` there. */
function setUp(numVfs?: number) {
  const clock = new HandClock();
  const log = recordingLog();
  const listeners = new Set<(event: Uevent) => void>();
  const pf = { number: "0", vfs: [] as string[], writes: [] as unknown[], refusal: undefined as Error | undefined };
  const devices = {
    readText: async () => pf.number,
    list: async () => ["config", ...pf.vfs],
    readLink: async (path: string) => `../0000:01:10.${path.at(-1)}`,
    async writeText(path: string, text: string, options: unknown) {
      pf.writes.push([path, text, options]);
      if (pf.refusal) throw pf.refusal;
    },
  } as unknown as HostFiles;
  const uevents = {
    subscribe(listener: (event: Uevent) => void) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    close() {},
  };
  const say = async (subsystem: string, devpath = "/devices/pci0000:00/0000:00:01.0") => {
    for (const listener of listeners) listener({ action: "add", subsystem, devpath, fields: {} });
    await settled();
  };
  const entry = { address, numVfs } as unknown as PfEntry;
  const create = (signal?: AbortSignal) =>
    createVfs({ address, entry, totalVfs: 3 }, { devices, uevents, clock, log, ...(signal && { signal }) });
  return { pf, create, say, clock, log };
}

test("wantedVfs() is as many as configured, at most as many as there can be, all by default", () => {
  const desired = (numVfs?: number) => desiredVfs({ entry: { numVfs } as unknown as PfEntry, totalVfs: 8 });
  assert.deepEqual([desired(), desired(0), desired(3), desired(64)], [8, 0, 3, 8]);
});

test("createVfs() requests the VFs once, and resolves when the last VF is there", async () => {
  const { pf, create, say, log, clock } = setUp(2);
  let isOver = false;
  const made = create().then(() => {
    isOver = true;
  });
  await clock.pass(4_000);
  assert.deepEqual(pf.writes, [[`${address}/sriov_numvfs`, "2", { limitMs: 300_000 }]]);
  pf.vfs.push("virtfn0");
  await say("pci");
  assert.equal(isOver, false, "one is missing");
  pf.vfs.push("virtfn1");
  await say("net");
  assert.equal(isOver, false, "that was another PCI function's");
  await say("pci");
  await made;
  assert.deepEqual(log.of("vfs-created"), [{ pf: address, count: 2, tookMs: 4_000 }]);
});

test("createVfs() reads again after news of the physical function's own network device", async () => {
  const { pf, create, say } = setUp(1);
  const made = create();
  await settled();
  pf.vfs.push("virtfn0");
  await say("net", `/devices/pci0000:00/${address}/net/eth0`);
  await made;
});

test("createVfs() changes no number that an operator has chosen meanwhile", async () => {
  const { pf, create } = setUp(3);
  pf.number = "1";
  await create();
  assert.deepEqual(pf.writes, []);
});

for (const [code, kind, says] of [
  ["ETIMEDOUT", "creation-stuck", "Cannot make 3 virtual functions of 0000:01:00.0: the driver does not finish"],
  ["ENOMEM", "creation-failed", /the kernel says ENOMEM; the firmware reserved too few PCI resources/],
  ["EIO", "creation-failed", "Cannot make 3 virtual functions of 0000:01:00.0: the kernel says EIO"],
] as const) {
  test(`createVfs() that the kernel answers with ${code} is ${kind}, and waits for no VF`, async () => {
    const { pf, create, clock } = setUp();
    pf.refusal = new KernelError("write", Errno[code]);
    await assert.rejects(create(), { name: "PfError", kind, message: says, cause: pf.refusal });
    assert.equal(clock.timerCount, 0);
  });
}

test("createVfs() says so where not all appear in time, and gives up when its caller does", async () => {
  const { pf, create, clock } = setUp();
  const made = create();
  pf.vfs = ["virtfn0", "virtfn1"];
  const failed = assert.rejects(made, { kind: "creation-failed", message: /asked for 3 .*, not all appeared/ });
  await clock.pass(30_000);
  await failed;
  const caller = new AbortController();
  const waiting = assert.rejects(create(caller.signal), /caller has gone/);
  await settled();
  caller.abort(new Error("caller has gone"));
  await waiting;
});
