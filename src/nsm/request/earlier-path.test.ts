// A client that comes back by another path: what it has is continued, and no other client reaches it that way.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { type Connection, MechanismSchema, State } from "../../gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../../gen/networkservice_pb.ts";
import { behalfOf, kernelRequest, NETNS, paperVfio, refreshOf, settled, TOKEN } from "../testing/fakes.ts";
import { endpointReply } from "../testing/fakes-outside.ts";
import { endStories, Story } from "../testing/story.ts";

afterEach(endStories);

const [VICTIM, EVIL] = ["spiffe://test/victim", "spiffe://test/evil"];
let story: Story;
let first: Connection;

beforeEach(async () => {
  story = new Story();
  first = await story.request(behalfOf(VICTIM, kernelRequest()));
  story.vf.done.length = 0;
});

const idOf = ({ path }: Connection) => path?.pathSegments[2]?.id;
const keys = () => [...story.deps.connections.keys()];
const anew = (id = "m2") => behalfOf(VICTIM, kernelRequest({}, id));
const closing = (answer: Connection) => behalfOf(VICTIM, refreshOf(answer)).connection ?? assert.fail();

function withParameters(message: NetworkServiceRequest, parameters: Record<string, string>): NetworkServiceRequest {
  Object.assign(message.mechanismPreferences[0]?.parameters ?? {}, parameters);
  return message;
}

test("request() by a new path continues what the client has, and touches nothing of the node", async () => {
  const answer = await story.request(anew());
  assert.deepEqual([idOf(first), idOf(answer), keys()], ["f1", "f2", ["f1"]]);
  assert.deepEqual(story.vf.done, []);
});

test("request() by a new path leads to the endpoint's own segment, and that gets no Close", async () => {
  const answer = await story.request(anew());
  const onward = story.outside.requests.at(-1)?.connection?.path?.pathSegments.map(({ name, id }) => `${name} ${id}`);
  assert.deepEqual(onward, ["client c1", "nsmgr m2", "fwd f2", "nse-1 e1"]);
  assert.equal(answer.path?.pathSegments[3]?.id, "e1");
  assert.equal(story.outside.closes.length, 0);
  await story.close(closing(answer));
  assert.deepEqual(
    story.outside.closes.map(({ connection }) => connection.id),
    ["f2"],
  );
});

test("request() by a new path is one record of the journal, and what has died before it is written continues by the old one", async () => {
  story.journal.failing.add("ready");
  await story.failed(anew());
  assert.equal(story.journal.kept.get("f1")?.id, undefined);
  story.journal.failing.clear();
  story = story.successor();
  story.journal.puts.splice(0);
  await story.request(anew("m3"));
  assert.deepEqual(
    story.journal.puts.map((entry) => [entry.connectionId, entry.id, entry.stage]),
    [["f1", "ff1", "ready"]],
  );
  story = story.successor();
  await story.close(closing(await story.request(anew("m3"))));
  assert.deepEqual(keys(), []);
});

test("close() by the earlier path ends nothing, whether it waits for the Request by the new one or comes later", async () => {
  const [answer] = await Promise.all([story.request(anew()), story.close(closing(first))]);
  await story.close(closing(first));
  assert.deepEqual([keys(), story.vf.done], [["f1"], []]);
  await story.close(closing(answer));
  assert.deepEqual(keys(), []);
});

test("close() by the new path waits for the Request by it", async () => {
  let answering: () => void = () => {};
  const reply = endpointReply("nse-1");
  story.outside.replies.set("tcp://nse-1:1", async (request) => {
    await new Promise<void>((resolve) => {
      answering = resolve;
    });
    return await reply(request);
  });
  const requested = anew();
  const continuing = story.request(requested);
  await settled();
  const path = requested.connection?.path;
  assert.ok(path);
  path.pathSegments.push({ ...(first.path?.pathSegments[2] ?? assert.fail()), id: "f2" });
  const closed = story.close(requested.connection ?? assert.fail());
  await settled();
  assert.deepEqual(story.vf.done, []);
  answering();
  await Promise.all([continuing, closed]);
  assert.deepEqual([keys(), story.vf.done], [[], ["detach", "give-back"]]);
});

test("request() by the earlier path continues, too: the latest has the connection", async () => {
  await story.request(anew());
  const answer = await story.request(behalfOf(VICTIM, refreshOf(first)));
  assert.notEqual(idOf(answer), "f2");
  assert.deepEqual([keys(), story.vf.done], [["f1"], []]);
});

test("request() by a new path that names another endpoint is served by that one, and the former gets a Close", async () => {
  story.outside.endpoints = [{ name: "nse-2", networkServiceNames: ["ns1"], url: "tcp://nse-2:1" }];
  story.outside.replies.set("tcp://nse-2:1", endpointReply("nse-2"));
  const message = anew();
  Object.assign(message.connection ?? {}, { networkServiceEndpointName: "nse-2" });
  const answer = await story.request(message);
  await settled();
  assert.equal(answer.networkServiceEndpointName, "nse-2");
  assert.deepEqual(
    story.outside.closes.map(({ target, connection }) => [target, connection.id]),
    [["tcp://nse-1:1", "f1"]],
  );
  assert.deepEqual(story.vf.done, []);
});

for (const { says, message, code } of [
  { says: "another client", message: () => behalfOf(EVIL, kernelRequest({}, "m2")), code: "RESOURCE_EXHAUSTED" },
  {
    says: "another client connection of the same client",
    message: () => {
      const other = anew();
      Object.assign(other.connection?.path?.pathSegments[0] ?? {}, { id: "c2" });
      return other;
    },
    code: "RESOURCE_EXHAUSTED",
  },
  {
    says: "a pod of another name with the client's id",
    message: () => {
      const other = anew();
      Object.assign(other.connection?.path?.pathSegments[0] ?? {}, { name: "client-2" });
      return other;
    },
    code: "RESOURCE_EXHAUSTED",
  },
]) {
  test(`request() by a new path continues nothing for ${says}`, async () => {
    const failure = await story.failed(message());
    assert.equal(failure.code, code, failure.message);
    assert.deepEqual([keys(), story.vf.done], [["f1"], []]);
    assert.equal(idOf(await story.request(behalfOf(VICTIM, refreshOf(first)))), "f1");
  });
}

test("request() by a new path whose token the policies refuse continues nothing", async () => {
  await story.failed(anew(), { tokenMs: -1 });
  assert.deepEqual(story.outside.requests.length, 1);
  assert.equal(idOf(await story.request(behalfOf(VICTIM, refreshOf(first)))), "f1");
});

test("request() by a new path for another namespace does not leave the former one's device where it is", async () => {
  story.manager.fds.sent.add("inode://4/77");
  await story.request(withParameters(anew(), { inodeURL: "inode://4/77" }));
  assert.deepEqual(story.vf.done, ["detach", "give-back", "take", "bind", "attach nsm-1"]);
});

test("request() by a new path with another token is another connection", async () => {
  const other = withParameters(anew(), { tokenID: TOKEN.replace("0", "1") });
  await story.request(other);
  assert.deepEqual(story.vf.done.slice(0, 2), ["detach", "give-back"]); // the paper node has one VF for all tokens
});

test("request() that reselects by a new path begins again", async () => {
  const message = anew();
  Object.assign(message.connection ?? {}, { state: State.RESELECT_REQUESTED });
  await story.request(message);
  assert.deepEqual(story.vf.done, ["detach", "give-back", "take", "bind", "attach nsm-1"]);
});

test("request() that reselects after a restart of ours continues with the endpoint of before, once", async () => {
  const kept = [
    { name: "nse-0", networkServiceNames: ["ns1"], url: "tcp://nse-0:1" },
    { name: "nse-1", networkServiceNames: ["ns1"], url: "tcp://nse-1:1" },
  ];
  story = story.successor();
  story.outside.endpoints = kept;
  story.outside.replies.set("tcp://nse-0:1", endpointReply("nse-0"));
  story.vf.done.length = 0;
  const reselecting = () => {
    const message = behalfOf(VICTIM, refreshOf(first));
    const { connection } = message;
    delete connection?.mechanism;
    Object.assign(connection ?? {}, { state: State.RESELECT_REQUESTED, networkServiceEndpointName: "" });
    return message;
  };
  const answer = await story.request(reselecting());
  assert.equal(answer.networkServiceEndpointName, "nse-1");
  assert.ok(!story.vf.done.includes("detach"), String(story.vf.done));
  assert.equal(story.outside.requests.at(-1)?.connection?.state, State.UP);
  await story.request(reselecting());
  assert.ok(story.vf.done.includes("detach"));
});

test("request() that reselects by a new path, the first since a restart of ours, leads on to the endpoint's own segment", async () => {
  story = story.successor();
  story.vf.done.length = 0;
  const message = anew();
  Object.assign(message.connection ?? {}, { state: State.RESELECT_REQUESTED });
  await story.request(message);
  const onward = story.outside.requests.at(-1)?.connection;
  assert.deepEqual([onward?.state, onward?.path?.pathSegments[3]?.id], [State.UP, "e1"]);
  assert.ok(!story.vf.done.includes("detach"), String(story.vf.done));
});

test("request() by a new path that names another endpoint after a restart of ours: the former gets a Close with the tokens of today", async () => {
  story = story.successor();
  for (const name of ["nse-1", "nse-2"]) {
    story.outside.endpoints = story.outside.endpoints.filter((one) => one.name !== name);
    story.outside.endpoints.push({ name, networkServiceNames: ["ns1"], url: `tcp://${name}:1` });
  }
  story.outside.replies.set("tcp://nse-2:1", endpointReply("nse-2"));
  const message = anew();
  Object.assign(message.connection ?? {}, { networkServiceEndpointName: "nse-2" });
  await story.request(message);
  await settled();
  const [closed] = story.outside.closes;
  const requested = story.outside.requests.at(-1)?.connection?.path?.pathSegments.slice(0, 3);
  const segments = closed?.connection.path?.pathSegments;
  assert.deepEqual([closed?.target, segments?.map(({ id }) => id)], ["tcp://nse-1:1", ["c1", "m1", "f1", "e1"]]);
  const tokens = requested?.map(({ token }) => token);
  assert.ok(tokens?.every((token) => token !== ""));
  assert.deepEqual(
    segments?.slice(0, 3).map(({ token }) => token),
    tokens,
  );
});

/** A VFIO preference before the others, which this node cannot serve. */
function withVfioFirst(message: NetworkServiceRequest): NetworkServiceRequest {
  const parameters = { tokenID: TOKEN, cgroupDir: "pod1" };
  message.mechanismPreferences.unshift(create(MechanismSchema, { cls: "LOCAL", type: "VFIO", parameters }));
  return message;
}

test("request() that continues is served by the mechanism that the client has, not by a preference that it did not get", async () => {
  const VFIO = { ...paperVfio, open: () => Promise.reject(new Error("no IOMMU here")) };
  Object.assign(story.deps.mechanisms, { VFIO });
  await story.request(withVfioFirst(anew()));
  assert.deepEqual([story.vf.done, story.outside.closes], [[], []]);
  story = story.successor();
  Object.assign(story.deps.mechanisms, { VFIO });
  story.vf.done.length = 0;
  const message = withVfioFirst(behalfOf(VICTIM, refreshOf(first)));
  delete message.connection?.mechanism;
  Object.assign(message.connection ?? {}, { state: State.RESELECT_REQUESTED, networkServiceEndpointName: "" });
  await story.request(message);
  assert.ok(!story.vf.done.includes("detach"), String(story.vf.done));
});

test("request() is looked up by what it desires once, however much its client has, and not where its path is known", async () => {
  const noop = (id: string) => {
    const message = anew(id);
    message.mechanismPreferences = [create(MechanismSchema, { cls: "LOCAL", type: "NOOP" })];
    return message;
  };
  /** How often the parameters of the preference are read until the Request is refused, at the policies. */
  const readsOf = async (message: NetworkServiceRequest) => {
    const [preference] = message.mechanismPreferences;
    const parameters = preference?.parameters ?? assert.fail();
    let reads = 0;
    Object.defineProperty(preference, "parameters", {
      get: () => {
        reads++;
        return parameters;
      },
    });
    await story.failed(message, { tokenMs: -1 });
    return reads;
  };
  const known = await readsOf(behalfOf(VICTIM, refreshOf(first)));
  assert.equal(await readsOf(anew()), known + 1);
  await story.close(closing(first));
  for (let nth = 0; nth < 4; nth++) await story.request(noop(`n${nth}`));
  assert.equal(await readsOf(anew()), known);
});

test("request() whose earlier path has ended before its turn begins again", async () => {
  const closed = story.close(closing(first));
  const answer = await story.request(anew());
  await closed;
  assert.deepEqual([idOf(answer), story.vf.done.at(-1)], ["f2", "attach nsm-1"]);
  assert.equal(story.outside.closes.length, 1);
  assert.equal(NETNS, answer.mechanism?.parameters["inodeURL"]);
});
