import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { kernelRequest, refreshOf } from "../testing/fakes.ts";
import { endStories, Story } from "../testing/story.ts";
import { mayAct, ownerFor } from "./connection-owner.ts";

afterEach(endStories);

const [now, before, other] = ["spiffe://d/nsmgr-b", "spiffe://d/nsmgr-a", "spiffe://d/client"];

test("mayAct() is true for who made it, and of managers for the one of now", () => {
  const made = (spiffeId: string, registeredWith: string) => ownerFor(spiffeId, { spiffeId: registeredWith });
  for (const [peer, owner, manager, may] of [
    [other, made(other, now), now, true],
    [now, made(before, before), now, true],
    [before, made(before, before), now, true],
    [now, made(other, now), now, false],
    [other, made(before, before), now, false],
    [other, made(before, before), undefined, false],
  ] as const) {
    assert.equal(mayAct(peer, owner, { spiffeId: manager }), may, `${peer} on what ${owner.spiffeId} made`);
  }
});

test("ownerFor() takes no peer for the manager before the first registration", () => {
  assert.deepEqual(ownerFor(other, { spiffeId: undefined }), { spiffeId: other, isManager: false });
});

test("the manager may neither refresh nor close what another peer has made", async () => {
  const story = new Story();
  const from = story.stranger("client");
  const answer = await story.request(kernelRequest(), { from });
  story.vf.done.length = 0;
  assert.equal((await story.failed(refreshOf(answer))).code, "PERMISSION_DENIED");
  await assert.rejects(story.close(answer), { fault: { kind: "not-the-owner", id: answer.path?.pathSegments[2]?.id } });
  assert.deepEqual([story.vf.done, story.connections], [[], 1]);
  await story.close(answer, { from });
  assert.equal(story.connections, 0);
});
