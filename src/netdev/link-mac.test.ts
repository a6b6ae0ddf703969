import assert from "node:assert/strict";
import { test } from "node:test";
import { Errno, KernelError, type Rtnl } from "../kernel/index.ts";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { silentLog } from "../telemetry/index.ts";
import { setLinkMac } from "./link-mac.ts";
import { Patience } from "./transient.ts";

const OWN = "02:00:00:00:aa:01";
const DESIRED = "02:00:00:00:bb:02";

/** A link whose driver answers an address so; `now` is what it has. */
function setUp(answer: (link: { now: string; isUp: boolean }) => keyof typeof Errno | undefined, has = OWN) {
  const clock = new HandClock();
  const link = { now: has, isUp: true };
  const requested: string[] = [];
  const rtnl = {
    async linkByIndex() {
      return { address: link.now };
    },
    async setLink(_ifindex: number, { address, up }: { readonly address?: string; readonly up?: boolean }) {
      requested.push(address ?? `up ${up}`);
      if (up !== undefined) link.isUp = up;
      if (address === undefined) return;
      const refusal = answer(link);
      if (refusal) throw new KernelError("set the address of link 7", Errno[refusal]);
    },
  } as unknown as Rtnl;
  const nextSign = (waitMs: number) => clock.sleep(waitMs);
  const patience = new Patience({ link: "vf0", clock, log: silentLog, limitMs: 10_000, nextSign });
  const setting = setLinkMac({ session: { netns: {} as never, rtnl }, ifindex: 7, mac: DESIRED, patience, clock });
  setting.catch(() => {}); // awaited below
  return { clock, link, requested, setting };
}

test("setLinkMac() requests nothing of a link that has the address", async () => {
  const { setting, requested } = setUp(() => assert.fail("it has it"), DESIRED);
  await setting;
  assert.deepEqual(requested, []);
});

test("setLinkMac() waits for a driver that takes the address when its PF has agreed", async () => {
  const { clock, link, requested, setting } = setUp(() => undefined);
  let isDone = false;
  void setting.then(() => {
    isDone = true;
  });
  await clock.pass(1_900);
  assert.equal(isDone, false);
  link.now = DESIRED;
  await clock.pass(100);
  await setting;
  assert.deepEqual(requested, [DESIRED]);
});

test("setLinkMac() takes a link down whose driver changes no address while it is up", async () => {
  const { clock, requested, setting } = setUp((link) => {
    if (link.isUp) return "EBUSY";
    link.now = DESIRED;
    return undefined;
  });
  await clock.pass(100);
  await setting;
  assert.deepEqual(requested, [DESIRED, "up false", DESIRED]);
});

test("setLinkMac() leaves a link up whose PF has set the address while the driver said not now", async () => {
  const { clock, link, requested, setting } = setUp((driver) => {
    driver.now = DESIRED;
    return "EBUSY";
  });
  await clock.pass(100);
  assert.deepEqual([requested, link.isUp], [[DESIRED], true]);
  await setting;
});

test("setLinkMac() is content with the PF's word after the driver has refused", async () => {
  const { clock, link, setting } = setUp(() => "EPERM");
  await clock.pass(500);
  link.now = DESIRED;
  await clock.pass(100);
  await setting;
});

for (const [says, answer, problem] of [
  ["that refuses", "EPERM", /EPERM/],
  ["that says yes and does nothing", undefined, /it did not change within 2000 ms/],
] as const) {
  test(`setLinkMac() of a driver ${says} ends after two seconds, and says why`, async () => {
    const { clock, setting } = setUp(() => answer);
    await clock.pass(2_100);
    await assert.rejects(setting, (error: Error) => problem.test(error.message) && error.message.includes(DESIRED));
  });
}

test("setLinkMac() waits for no link that is gone", async () => {
  const { clock, setting } = setUp(() => "ENODEV");
  await settled();
  assert.equal(clock.timerCount, 0);
  await assert.rejects(setting, { code: "ENODEV" });
});

test("setLinkMac() takes no link down whose driver only asks to be asked again", async () => {
  const answers = ["EAGAIN", "ENETDOWN"] as const;
  let tries = 0;
  const { clock, requested, setting } = setUp((link) => {
    const answer = answers[tries++];
    if (answer === undefined) link.now = DESIRED;
    return answer;
  });
  await clock.pass(100);
  assert.deepEqual(requested, [DESIRED, DESIRED, DESIRED]);
  await setting;
});
