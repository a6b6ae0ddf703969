import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { MechanismSchema, type PathSegment, PathSegmentSchema } from "../../gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../../gen/networkservice_pb.ts";
import { behalfOf, kernelRequest, refreshOf } from "../testing/fakes.ts";
import { endpointReply } from "../testing/fakes-outside.ts";
import { endStories, Story } from "../testing/story.ts";

afterEach(endStories);

const [victim, evil] = ["spiffe://test/victim", "spiffe://test/evil"];

let story: Story;

beforeEach(() => {
  story = storyOfEndpoints();
});

function storyOfEndpoints(): Story {
  const story = new Story();
  let ids = 0;
  // As NSM's endpoints do: a segment of that name keeps its id.
  story.outside.replies.set("tcp://nse-1:1", (request) => {
    const { path } = request.connection ?? {};
    const known = path?.pathSegments[path.index + 1]?.id;
    const name = "nse-1";
    return endpointReply(name, ({ path: answered }) => {
      const id = known ?? `e${++ids}`;
      answered?.pathSegments.splice(answered.index + 1, 1, create(PathSegmentSchema, { name, id, token: "e>f@1" }));
    })(request);
  });
  return story;
}

/** Without a token of its own, on a path that continues like this. */
function noopBy(client: string, beyond: readonly (PathSegment | undefined)[]): NetworkServiceRequest {
  const message = behalfOf(client, kernelRequest({}, "m2"));
  message.mechanismPreferences = [create(MechanismSchema, { cls: "LOCAL", type: "NOOP" })];
  const segments = beyond.filter((one) => one !== undefined).map((one) => create(PathSegmentSchema, one));
  message.connection?.path?.pathSegments.push(...segments);
  return message;
}

const requested = () => story.outside.requests.at(-1)?.connection?.path?.pathSegments.map(({ id }) => id);

test("a path that leads into another client's connection at the endpoint gets a segment of its own there", async () => {
  const answer = await story.request(behalfOf(victim, kernelRequest()));
  const [, , own, next] = answer.path?.pathSegments ?? [];
  const taken = await story.request(noopBy(evil, [own, next]));
  assert.deepEqual(requested(), ["c1", "m2", own?.id]);
  assert.deepEqual([next?.id, taken.path?.pathSegments[3]?.id], ["e1", "e2"]);
  const refresh = refreshOf(taken);
  refresh.connection?.path?.pathSegments.splice(3, 1, create(PathSegmentSchema, { name: "nse-2", id: next?.id ?? "" }));
  await story.request(behalfOf(evil, refresh));
  assert.deepEqual(requested(), ["c1", "m2", own?.id]);
});

/** The other client is there first; then the victim gets a connection at the endpoint. */
async function olderThanVictim() {
  const taken = await story.request(noopBy(evil, []));
  const answer = await story.request(behalfOf(victim, kernelRequest()));
  const [own, next] = [taken.path?.pathSegments[2], answer.path?.pathSegments[3]];
  assert.deepEqual([taken.path?.pathSegments[3]?.id, next?.id], ["e1", "e2"]);
  const leading = (name: string) => {
    const refresh = refreshOf(taken);
    refresh.connection?.path?.pathSegments.splice(3, 1, create(PathSegmentSchema, { name, id: next?.id ?? "" }));
    return behalfOf(evil, refresh);
  };
  return { taken, own, leading };
}

test("nor does that of a client whose own connection is the older one", async () => {
  const { own, leading } = await olderThanVictim();
  await story.request(leading("nse-1"));
  assert.deepEqual(requested(), ["c1", "m2", own?.id]);
});

test("nor where the client's own endpoint has answered with the other one's id, and the Request goes elsewhere", async () => {
  for (const how of ["another endpoint is named", "its own endpoint is out of reach"] as const) {
    const { own, taken, leading } = await olderThanVictim();
    story.outside.endpoints.push({ name: "nse-2", networkServiceNames: ["ns1"], url: "tcp://nse-2:1" });
    story.outside.replies.set("tcp://nse-2:1", (request) =>
      endpointReply("nse-1", ({ path }) => Object.assign(path?.pathSegments[path.index + 1] ?? {}, { id: "e2" }))(
        request,
      ),
    );
    const toItsOwn = leading("nse-1");
    assert.ok(toItsOwn.connection);
    toItsOwn.connection.networkServiceEndpointName = "nse-2";
    const caught = await story.request(toItsOwn);
    assert.equal(caught.path?.pathSegments[3]?.id, "e2", how);
    const next = leading("nse-1");
    assert.ok(next.connection);
    next.connection.networkServiceEndpointName = how === "another endpoint is named" ? "nse-1" : "";
    if (next.connection.networkServiceEndpointName === "") story.outside.replies.delete("tcp://nse-2:1");
    await story.request(next);
    assert.deepEqual([requested(), taken.id], [["c1", "m2", own?.id], caught.id], how);
    await endStories();
    story = storyOfEndpoints();
  }
});

test("a client's own path leads on to its endpoint, also when another one's endpoint has answered with its id", async () => {
  const answer = await story.request(behalfOf(victim, kernelRequest()));
  story.outside.endpoints = [{ name: "nse-2", networkServiceNames: ["ns2"], url: "tcp://nse-2:1" }];
  story.outside.services.push({ name: "ns2", payload: "ETHERNET" });
  story.outside.replies.set("tcp://nse-2:1", endpointReply("nse-2")); // says "e1", as the victim's endpoint did
  const attempt = noopBy(evil, []);
  assert.ok(attempt.connection);
  attempt.connection.networkService = "ns2";
  const taken = await story.request(attempt);
  assert.equal(taken.path?.pathSegments[3]?.id, "e1");
  await story.request(behalfOf(victim, refreshOf(answer)));
  assert.deepEqual(requested(), ["c1", "m1", answer.path?.pathSegments[2]?.id, "e1"]);
});

test("a client that comes by another way finds its own connection at the endpoint", async () => {
  const answer = await story.request(behalfOf(victim, kernelRequest()));
  const other = create(PathSegmentSchema, { name: "fwd", id: "y" });
  await story.request(noopBy(victim, [other, answer.path?.pathSegments[3]]));
  assert.deepEqual(requested(), ["c1", "m2", "y", "e1"]);
});
