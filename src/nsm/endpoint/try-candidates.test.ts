import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ConnectionSchema, MechanismSchema } from "../../gen/connection_pb.ts";
import { DialRefused, RpcError } from "../../rpc/index.ts";
import { HandClock, kernelRequest, settled } from "../testing/fakes.ts";
import { endpointReply, Outside } from "../testing/fakes-outside.ts";
import { endStories, Story } from "../testing/story.ts";
import type { Candidate } from "./find-endpoints.ts";
import { closeAtEndpoint, requestFromEndpoint, tryCandidates } from "./try-candidates.ts";

afterEach(endStories);

const DEADLINE_MS = 15_000;

let story: Story;
/** Endpoints that take a Request and never answer it. */
let mute: Set<string>;
/** Whom a Request has reached, and when, in ms since the beginning. */
let reached: [name: string, atMs: number][];

beforeEach(() => {
  story = new Story();
  mute = new Set();
  reached = [];
  const { outside, clock } = story;
  const startMs = clock.now();
  const call = outside.call.bind(outside);
  outside.call = (async (...args: Parameters<Outside["call"]>) => {
    const [target, { name: method }, , { signal } = {}] = args;
    const name = new URL(target).hostname;
    if (method === "Request") reached.push([name, clock.now() - startMs]);
    return method === "Request" && mute.has(name) ? await silence(signal) : await call(...args);
  }) as Outside["call"];
});

function silence(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

function register(...names: readonly string[]): void {
  story.outside.endpoints = names.map((name) => ({ name, networkServiceNames: ["ns1"], url: `tcp://${name}:1` }));
  for (const name of names) story.outside.replies.set(`tcp://${name}:1`, endpointReply(name));
}

const closed = () => story.outside.closes.map(({ target }) => new URL(target).hostname);

test("tryCandidates() leaves one that does not answer after half of the time, closes there, and asks the next", async () => {
  register("mute-1", "mute-2", "honest");
  mute.add("mute-1").add("mute-2");
  const answered = story.request(kernelRequest(), { deadlineMs: DEADLINE_MS });
  await story.clock.pass(DEADLINE_MS);
  assert.equal((await answered).networkServiceEndpointName, "honest");
  assert.deepEqual(reached, [
    ["mute-1", 0],
    ["mute-2", 7_500],
    ["honest", 11_250],
  ]);
  assert.deepEqual(closed(), ["mute-1", "mute-2"]);
});

test("tryCandidates() lets the only candidate take all the time", async () => {
  register("mute-1");
  mute.add("mute-1");
  const caller = new AbortController();
  const failed = story.failed(kernelRequest(), { deadlineMs: DEADLINE_MS, signal: caller.signal });
  await story.clock.pass(DEADLINE_MS - 1);
  assert.deepEqual([reached, closed()], [[["mute-1", 0]], []]);
  caller.abort(new RpcError("DEADLINE_EXCEEDED", "the time is up"));
  await failed;
  await settled();
  assert.deepEqual(closed(), ["mute-1"]);
});

test("tryCandidates() tries one that did not answer after the others for half a minute", async () => {
  register("mute-1", "honest");
  mute.add("mute-1");
  for (const [passMs, expected] of [
    [DEADLINE_MS, ["mute-1", "honest"]],
    [0, ["honest"]],
    [0, ["honest"]],
    [30_000, ["honest"]],
    [0, ["mute-1", "honest"]],
  ] as const) {
    reached.length = 0;
    const answered = story.request(kernelRequest(), { deadlineMs: DEADLINE_MS });
    await story.clock.pass(expected.length > 1 ? DEADLINE_MS : 0);
    await story.close(await answered);
    assert.deepEqual(
      reached.map(([name]) => name),
      expected,
    );
    await story.clock.pass(passMs);
  }
});

test("tryCandidates() shares the limit of a Request where its caller has none", async () => {
  register("mute-1", "honest");
  mute.add("mute-1");
  const answered = story.request(kernelRequest());
  await story.clock.pass(30_000);
  assert.equal((await answered).networkServiceEndpointName, "honest");
  assert.deepEqual(reached.at(-1), ["honest", 30_000]);
});

const NOOP = create(MechanismSchema, { cls: "REMOTE", type: "NOOP" });

/** Endpoints that get a Request without a forwarder around them: those without a reply refuse, `mute` ones do not answer. */
function direct() {
  const [clock, outside] = [new HandClock(), new Outside()];
  const noted: string[] = [];
  const candidate = (name: string): Candidate => {
    const url = `tcp://${name}:1`;
    const socket = { url, target: url, isLocal: false, release() {} };
    return { name, socket, note: (outcome) => void noted.push(`${name} ${outcome}`) };
  };
  const call = outside.call.bind(outside);
  outside.call = (async (...args: Parameters<Outside["call"]>) => {
    const [target, { name: method }, , { signal } = {}] = args;
    return method === "Request" && target.includes("mute") ? await silence(signal) : await call(...args);
  }) as Outside["call"];
  const path = { index: 0, pathSegments: [{ name: "fwd", id: "f1" }] };
  const connection = create(ConnectionSchema, { id: "f1", networkService: "ns1", path });
  const caller = new AbortController();
  const question = { connection, mechanism: undefined, signal: caller.signal, endsAtMs: clock.monotonicMs() + 15_000 };
  const leave = () => caller.abort(new RpcError("CANCELLED", "the caller has gone"));
  return {
    clock,
    outside,
    noted,
    candidate,
    question,
    leave,
    requesting: { caller: outside, clock, onCloseFailed() {} },
  };
}

test("tryCandidates() notes who has failed and who has agreed, and leaves no timer", async () => {
  const { clock, noted, candidate, question, requesting } = direct();
  const onward = await tryCandidates(requesting, [candidate("away"), candidate("nse-1"), candidate("nse-2")], question);
  assert.equal(onward.candidate.name, "nse-1");
  assert.deepEqual([noted, clock.timerCount], [["away failed", "nse-1 agreed"], 0]);
});

test("tryCandidates() takes it for no failure of an endpoint that its owner may dial no more", async () => {
  const { outside, noted, candidate, question, requesting } = direct();
  outside.call = (async () => {
    throw new DialRefused("no more");
  }) as Outside["call"];
  const failed = tryCandidates(requesting, [candidate("nse-1"), candidate("nse-2")], question);
  await assert.rejects(failed, /select endpoint nse-1 --> no more/);
  assert.deepEqual(noted, []);
});

for (const [says, passMs, expected] of [
  ["is no failure of the endpoint where its caller was impatient", 4_999, []],
  ["is a failure of the endpoint that was silent for five seconds", 5_000, ["mute failed"]],
] as const) {
  test(`tryCandidates() that is given up ${says}`, async () => {
    const { clock, noted, candidate, question, leave, requesting } = direct();
    const failed = assert.rejects(tryCandidates(requesting, [candidate("mute")], question), { code: "CANCELLED" });
    await clock.pass(passMs);
    leave();
    await failed;
    assert.deepEqual(noted, expected);
  });
}

for (const [what, mechanism, closes] of [
  ["first Request", undefined, 1],
  ["refresh", NOOP, 0],
] as const) {
  test(`requestFromEndpoint() closes ${closes} connections for a ${what} that is given up`, async () => {
    const { outside, candidate, question, leave, requesting } = direct();
    const failed = assert.rejects(requestFromEndpoint(requesting, candidate("mute"), { ...question, mechanism }));
    await settled();
    leave();
    await failed;
    await settled();
    assert.equal(outside.closes.length, closes);
  });
}

test("closeAtEndpoint() names the endpoint, and what it agreed to", async () => {
  const { outside, candidate, question, requesting } = direct();
  const { connection } = question;
  await closeAtEndpoint(requesting, { candidate: candidate("nse-1"), connection, mechanism: NOOP });
  const [closed] = outside.closes;
  assert.deepEqual(
    [closed?.connection.networkServiceEndpointName, closed?.connection.mechanism?.type],
    ["nse-1", "NOOP"],
  );
});
