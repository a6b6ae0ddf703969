import assert from "node:assert/strict";
import { test } from "node:test";
import { type Clock, DeadlineError } from "../async/index.ts";
import { Errno, KernelError } from "../kernel/index.ts";
import { silentLog } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import type { NetdevError } from "./error.ts";
import { isTransient, Patience, type PatienceOptions } from "./transient.ts";

/** Time that only passes while a caller waits; each wait lasts as long as it may, unless the kernel reports something. */
function byHand(options: Partial<PatienceOptions> = {}) {
  let nowMs = 0;
  const waits: number[] = [];
  const clock = { monotonicMs: () => nowMs } as unknown as Clock;
  const patience = new Patience({
    link: "vf0",
    clock,
    log: silentLog,
    limitMs: 10_000,
    async nextSign(waitMs) {
      waits.push(waitMs);
      nowMs += waitMs;
    },
    ...options,
  });
  return {
    patience,
    waits,
    passMs(ms: number) {
      nowMs += ms;
    },
  };
}

/** A driver with these answers, one a try; done behind the last one. */
function driver(...answers: (keyof typeof Errno)[]) {
  const left = [...answers];
  const tries = { count: 0 };
  const act = async () => {
    tries.count += 1;
    const answer = left.shift();
    if (answer) throw new KernelError("set up of link 7", Errno[answer]);
    return "done";
  };
  return { act, tries };
}

const forEver = (answer: keyof typeof Errno) => async () => {
  throw new KernelError("set up of link 7", Errno[answer]);
};

for (const answer of ["EBUSY", "EAGAIN", "ENETDOWN"] as const) {
  test(`Patience.run() waits out ${answer}, ever longer`, async () => {
    const { patience, waits } = byHand();
    const { act, tries } = driver(...Array.from({ length: 9 }, () => answer));
    assert.equal(await patience.run("set up", act), "done");
    assert.deepEqual([tries.count, waits], [10, [5, 10, 20, 40, 80, 160, 320, 500, 500]]);
  });
}

test("Patience.run() does a step once whose answer is final", async () => {
  for (const answer of ["EACCES", "EINVAL", "EOPNOTSUPP", "ENODEV", "EADDRNOTAVAIL"] as const) {
    const { patience, waits } = byHand();
    const { act, tries } = driver(answer);
    await assert.rejects(patience.run("set up", act), { code: answer });
    assert.deepEqual([tries.count, waits], [1, []]);
  }
  assert.equal(isTransient(new Error("EBUSY")), false);
});

test("Patience.run() ends at its limit, and says which step, which answer and how often", async () => {
  const { patience } = byHand({ limitMs: 1_000 });
  await assert.rejects(patience.run("set VLAN of VF 3", forEver("EAGAIN")), (error: NetdevError) => {
    const { kind, ...rest } = error.fault as Extract<NetdevError["fault"], { kind: "busy" }>;
    assert.deepEqual(
      { kind, ...rest },
      {
        kind: "busy",
        link: "vf0",
        step: "set VLAN of VF 3",
        answer: "EAGAIN",
        tries: 9,
        afterMs: 1_000,
      },
    );
    assert.match(
      error.message,
      /Cannot set VLAN of VF 3 \(link vf0\): its driver answered EAGAIN 9 times within 1000 ms/,
    );
    return true;
  });
});

test("Patience has one limit for all its steps", async () => {
  const { patience, passMs } = byHand({ limitMs: 1_000 });
  await patience.run("move the link", async () => passMs(990));
  await assert.rejects(patience.run("set up", forEver("EBUSY")), /EBUSY 3 times within 10 ms/);
});

test("Patience.run() ends with the deadline of the caller, and reports what it waited for", async () => {
  const deadline = new AbortController();
  const reason = new DeadlineError("Request took longer than 15000 ms");
  const { patience } = byHand({
    signal: deadline.signal,
    async nextSign() {
      deadline.abort(reason);
      throw reason;
    },
  });
  await assert.rejects(patience.run("set up", forEver("EBUSY")), (error: NetdevError) => {
    assert.equal(error.cause, reason);
    return error.fault.kind === "busy" && error.fault.tries === 1;
  });
});

test("Patience.run() tries at once when the kernel reports the link, and logs that it waited", async () => {
  const log = recordingLog();
  const { patience } = byHand({ log, nextSign: async () => {} }); // news, before any time has passed
  await patience.run("set up", driver("EBUSY", "EBUSY").act);
  const [event] = log.of("driver-was-busy");
  assert.partialDeepStrictEqual(event, { link: "vf0", step: "set up", tries: 3, tookMs: 0 });
});

test("Patience.run() waits no more for a caller who has gone", async () => {
  const { patience, waits } = byHand({ signal: AbortSignal.abort(new Error("the node is going")) });
  await assert.rejects(patience.run("set up", forEver("EBUSY")), /EBUSY 1 times? within 0 ms/);
  assert.deepEqual(waits, []);
});
