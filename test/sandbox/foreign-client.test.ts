// Two clients behind one manager: neither reaches the other's connection, whatever it knows of it.
import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import type { SandboxPod } from "../../sandbox/sandbox.ts";
import { MechanismSchema, PathSegmentSchema, State } from "../../src/gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../../src/gen/networkservice_pb.ts";
import { refusal, runStories } from "./scenes/story.ts";

type Path = readonly { readonly name: string; readonly id: string }[];
type Alter = (request: NetworkServiceRequest) => void;

/** On the way of another client, from the manager to the endpoint: the manager only checks whose call it is. */
function onPathOf(segments: Path, more: Alter = () => {}): Alter {
  return (request) => {
    const own = request.connection?.path?.pathSegments;
    own?.splice(1, own.length, ...segments.slice(1).map(({ name, id }) => create(PathSegmentSchema, { name, id })));
    more(request);
  };
}

function reselect({ connection }: NetworkServiceRequest): void {
  if (connection) connection.state = State.RESELECT_REQUESTED;
}

const REFUSED = refusal("PERMISSION_DENIED", /^no sufficient privileges: the caller has no connection of this id/);

runStories(
  "a client behind the manager",
  {},
  {
    "neither refreshes, reselects nor closes the connection of another client": async (scene) => {
      const [victim, evil] = [await scene.pod(), await scene.pod()];
      const path = pathOf(await victim.client.request());
      await assertHarmless({ victim, evil, path });
      await scene.sandbox.stopForwarder();
      scene.forwarder = await scene.sandbox.startForwarder();
      await assertHarmless({ victim, evil, path });
      await victim.client.close();
    },

    "has its own connection where it has taken another one's id, and the other stays as it is": async (scene) => {
      const [victim, evil] = [await scene.pod(), await scene.pod()];
      const path = pathOf(await victim.client.request());
      const asNoop: Alter = (request) => {
        request.mechanismPreferences = [create(MechanismSchema, { cls: "LOCAL", type: "NOOP" })];
      };
      const closed = scene.sandbox.endpoint.closes.length;
      const taken = pathOf(await evil.client.request({ alter: onPathOf(path, asNoop) }));
      assert.deepEqual(taken.map(({ id }) => id).slice(1, 3), path.map(({ id }) => id).slice(1, 3));
      assert.notEqual(taken[3]?.id, path[3]?.id, "it has a segment of its own at the endpoint");
      await evil.client.close({ alter: asNoop });
      assert.equal(scene.sandbox.endpoint.closes.length, closed + 1);
      assert.equal((await victim.pod.link("nsm-1"))?.up, true);
      assert.deepEqual(pathOf(await victim.client.request()), path);
      await victim.client.close();
    },
  },
);

/** What the other client tries. */
async function assertHarmless({
  victim,
  evil,
  path,
}: {
  readonly victim: SandboxPod;
  readonly evil: SandboxPod;
  readonly path: Path;
}): Promise<void> {
  const before = await victim.pod.link("nsm-1");
  const parameters = victim.client.proposal().mechanismPreferences;
  const asVictim: Alter = (request) => {
    request.mechanismPreferences = parameters;
  };
  const withReselect: Alter = (request) => {
    asVictim(request);
    reselect(request);
  };
  const fds = [victim.pod.netns.fd];
  for (const more of [asVictim, withReselect]) {
    await assert.rejects(evil.client.request({ fds, alter: onPathOf(path, more) }), REFUSED);
  }
  const { connection = assert.fail("a proposal has a connection") } = evil.client.proposal();
  connection.path?.pathSegments.push(...path.slice(1).map(({ name, id }) => create(PathSegmentSchema, { name, id })));
  await assert.rejects(evil.client.sendClose(connection), REFUSED);
  assert.deepEqual(await victim.pod.link("nsm-1"), before);
  assert.deepEqual(pathOf(await victim.client.request()), path, "its own refresh is served");
}

function pathOf({ path }: { readonly path?: { readonly pathSegments: Path } | undefined }): Path {
  return (path?.pathSegments ?? []).map(({ name, id }) => ({ name, id }));
}
