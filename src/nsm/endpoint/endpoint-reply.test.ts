import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { type Connection, ConnectionSchema, MechanismSchema, PathSegmentSchema } from "../../gen/connection_pb.ts";
import { kernelRequest, PaperFd } from "../testing/fakes.ts";
import { endpointReply } from "../testing/fakes-outside.ts";
import { endStories, Story } from "../testing/story.ts";
import { readReply } from "./endpoint-reply.ts";

afterEach(endStories);

let story: Story;
beforeEach(() => {
  story = new Story();
});

const hostile: readonly (readonly [says: string, change: (reply: Connection) => void, text: RegExp])[] = [
  [
    "is shorter than our place",
    ({ path }) => path?.pathSegments.splice(1),
    /its path has 1 segments, ours is number 3/,
  ],
  ["has no path", (reply) => delete reply.path, /its path has 0 segments/],
  [
    "puts another connection in our place",
    ({ path }) => path?.pathSegments.splice(2, 1, create(PathSegmentSchema, { name: "fwd", id: "victim" })),
    /another connection in our place/,
  ],
  [
    "puts another name in our place",
    ({ path }) => path?.pathSegments.splice(2, 1, create(PathSegmentSchema, { name: "victim", id: "f1" })),
    /another connection in our place/,
  ],
  [
    "has an id that is nowhere on the path",
    (reply) => {
      reply.id = "victim";
    },
    /connection id is not on its path/,
  ],
  [
    "chose a mechanism that was not offered",
    (reply) => {
      reply.mechanism = create(MechanismSchema, { cls: "LOCAL", type: "KERNEL" });
    },
    /it chose mechanism "KERNEL", NOOP was offered/,
  ],
  [
    "has a path without end",
    ({ path }) => path?.pathSegments.push(...Array.from({ length: 100 }, () => create(PathSegmentSchema))),
    /104 are more than the limit of 32/,
  ],
  [
    "has addresses without end",
    ({ context }) => context?.ipContext?.srcIpAddrs.push(...Array.from({ length: 1000 }, () => "10.0.0.1/32")),
    /are more than the limit of 512/,
  ],
];

for (const [says, change, text] of hostile) {
  test(`an endpoint's answer that ${says} is refused, closed and undone`, async () => {
    story.outside.replies.set("tcp://nse-1:1", endpointReply("nse-1", change));
    const failure = await story.failed(kernelRequest());
    assert.match(failure.message, text);
    assert.equal(failure.code, "INTERNAL");
    assert.equal(story.outside.closes.length, 1);
    assert.equal(story.outside.closes[0]?.connection.id, "f1");
    assert.deepEqual(story.vf.done, ["take", "bind", "detach", "give-back"]);
    assert.deepEqual([story.connections, PaperFd.open], [0, 0]);
  });
}

test("an endpoint's answer cannot change our side of the path, the service or its own name", async () => {
  const change = (reply: Connection) => {
    reply.networkService = "other";
    reply.networkServiceEndpointName = "other";
    const first = reply.path?.pathSegments[0];
    if (first) first.id = "victim";
    if (reply.path) reply.path.index = 4_000_000_000;
  };
  story.outside.replies.set("tcp://nse-1:1", endpointReply("nse-1", change));
  const answer = await story.request(kernelRequest());
  assert.equal(answer.networkService, "ns1");
  assert.equal(answer.networkServiceEndpointName, "nse-1");
  assert.equal(answer.path?.pathSegments[0]?.id, "c1");
  assert.equal(answer.path?.index, 1);
});

test("readReply() takes from an answer what is the endpoint's to say, and nothing else", () => {
  const requested = create(ConnectionSchema, {
    id: "f1",
    payload: "IP",
    path: { index: 0, pathSegments: [{ name: "fwd", id: "f1" }] },
  });
  const theirs = create(ConnectionSchema, {
    mechanism: { cls: "LOCAL", type: "NOOP" },
    path: {
      index: 1,
      pathSegments: [
        { name: "fwd", id: "f1", token: "f>e" },
        { name: "nse-1", id: "e1" },
      ],
    },
  });
  const { connection, mechanism } = readReply(requested, theirs, "nse-1");
  assert.deepEqual([connection.mechanism, mechanism?.type], [undefined, "NOOP"]);
  assert.deepEqual([connection.id, connection.payload], ["f1", "IP"]);
  assert.deepEqual([connection.path?.index, connection.path?.pathSegments.map(({ id }) => id)], [0, ["f1", "e1"]]);
  theirs.payload = "ETHERNET";
  assert.equal(readReply(requested, theirs, "nse-1").connection.payload, "ETHERNET");
});

test("an endpoint's answer without a mechanism is taken for NOOP", async () => {
  const change = (reply: Connection) => {
    delete reply.mechanism;
  };
  story.outside.replies.set("tcp://nse-1:1", endpointReply("nse-1", change));
  assert.equal((await story.request(kernelRequest())).mechanism?.type, "KERNEL");
});
