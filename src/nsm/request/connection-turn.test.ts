import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { within } from "../../../test/scenes/until.ts";
import type { Connection } from "../../gen/connection_pb.ts";
import { kernelRequest, refreshOf, settled } from "../testing/fakes.ts";
import { endStories, Story } from "../testing/story.ts";

afterEach(endStories);

/** What is done while one connection has a long turn, and eight Requests wait for theirs. */
async function besideBusyConnection(work: (scene: Awaited<ReturnType<typeof busyConnection>>) => Promise<void>) {
  const scene = await busyConnection();
  try {
    await work(scene);
  } finally {
    scene.end();
    await Promise.allSettled(scene.waiting);
  }
}

async function busyConnection() {
  const story = new Story();
  const answer = await story.request(kernelRequest());
  const [key] = story.deps.connections.keys();
  const gate = Promise.withResolvers<void>();
  const long = story.deps.turns.run(key ?? assert.fail(), () => gate.promise);
  await settled();
  const callers = Array.from({ length: 8 }, () => new AbortController());
  const waiting = callers.map(({ signal }) => story.request(refreshOf(answer), { signal }));
  await settled();
  return { story, answer, callers, waiting: [long, ...waiting], end: () => gate.resolve() };
}

/** More than 16 KiB. */
function largeRefreshOf(answer: Connection) {
  const refresh = refreshOf(answer);
  for (let nth = 0; nth < 5; nth++)
    Object.assign(refresh.connection?.labels ?? {}, { [`note-${nth}`]: "x".repeat(3_500) });
  return refresh;
}

test("request() refuses a large one that would be the ninth to wait for its turn on one connection; one whose caller goes leaves room", () =>
  besideBusyConnection(async ({ story, answer, callers, waiting, end }) => {
    const refusal = await within("the ninth is refused", story.failed(largeRefreshOf(answer)), 2_000);
    assert.equal(refusal.code, "RESOURCE_EXHAUSTED");
    assert.deepEqual(story.refused, ["waiting-calls"]);
    assert.match(refusal.message, /of connection \w+: 8 calls wait for their turn on it; try again when one has ended/);
    callers[0]?.abort(new Error("gone"));
    const later = story.request(largeRefreshOf(answer));
    end();
    assert.equal((await later).id, answer.id);
    const results = await Promise.allSettled(waiting);
    assert.deepEqual(
      results.flatMap(({ status }, nth) => (status === "rejected" ? [nth] : [])),
      [1],
      "of those that had room only the one whose caller went",
    );
  }));

test("request() lets 64 wait that are as small as a refresh is, and close() 128", () =>
  besideBusyConnection(async ({ story, answer, end }) => {
    const refreshes = Promise.allSettled(Array.from({ length: 57 }, () => story.request(refreshOf(answer))));
    await settled();
    const closes = Promise.allSettled(Array.from({ length: 65 }, () => story.close(answer)));
    end();
    const refused = [...(await refreshes), ...(await closes)].flatMap((result, nth) =>
      result.status === "rejected" ? [`${nth}: ${String(result.reason)}`] : [],
    );
    assert.equal(refused.length, 2, refused.join("\n"));
    assert.match(refused[0] ?? "", /^56: .*64 calls wait for their turn on it/);
    assert.match(refused[1] ?? "", /^121: .*128 calls wait for their turn on it/);
    assert.deepEqual([story.refused, story.connections], [["waiting-calls", "waiting-calls"], 0]);
  }));

test("close() has room where large Requests have none left, up to sixteen that wait", () =>
  besideBusyConnection(async ({ story, answer, end }) => {
    const large = largeRefreshOf(answer).connection ?? assert.fail();
    const closes = Promise.allSettled(Array.from({ length: 9 }, () => story.close(large)));
    end();
    const results = await closes;
    const refused = results.filter(({ status }) => status === "rejected");
    assert.deepEqual([refused.length, results.at(-1)?.status, story.connections], [1, "rejected", 0]);
    assert.deepEqual(story.refused, ["waiting-calls"]);
    assert.match(String((refused[0] as PromiseRejectedResult).reason), /16 calls wait for their turn on it/);
  }));
