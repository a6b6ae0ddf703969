// What one peer may have of this node, as its peers and its disk see it.
import assert from "node:assert/strict";
import { stat } from "node:fs/promises";
import { create } from "@bufbuild/protobuf";
import type { Client } from "../../sandbox/nsm/client.ts";
import { MechanismSchema } from "../../src/gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../../src/gen/networkservice_pb.ts";
import { refusal, runStories } from "./scenes/story.ts";

/** Neither a token nor a namespace is needed for it. */
function noop(request: NetworkServiceRequest): void {
  request.mechanismPreferences = [create(MechanismSchema, { cls: "LOCAL", type: "NOOP" })];
}

function largeNoop(request: NetworkServiceRequest): void {
  noop(request);
  const labels = Array.from({ length: 40 }, (_, index) => [`label-${index}`, "x".repeat(4_000)]);
  Object.assign(request.connection?.labels ?? {}, Object.fromEntries(labels));
}

runStories(
  "a peer",
  {},
  {
    "that asks for NOOP connections without end gets its share, and others are served": async (scene) => {
      const { sandbox } = scene;
      const greedy = (name: string) =>
        sandbox.directClient(name, { manager: { name: "greedy", actor: sandbox.actor("greedy") } });
      const clients: Client[] = [];
      for (let index = 0; index < 16; index++) {
        const client = greedy(`greedy-${index}`);
        await client.request({ alter: noop });
        clients.push(client);
      }
      const full = refusal(
        "RESOURCE_EXHAUSTED",
        /\/greedy: its owner has 16 connections of that kind, and may have 16/,
      );
      await assert.rejects(greedy("greedy-more").request({ alter: noop }), full);
      await clients[0]?.request({ alter: noop }); // A refresh.
      await scene.serves(await scene.pod());
      for (const client of clients) await client.close({ alter: noop });
    },

    "that asks for a large connection, or with an invented token, costs the disk nothing": async (scene) => {
      const { sandbox } = scene;
      const pod = await scene.pod();
      await pod.client.request(); // So that there is a journal.
      const bytes = async () => (await stat(`${sandbox.folder}/state/journal`)).size;
      const before = await bytes();
      const large = sandbox.directClient("large").request({ alter: largeNoop });
      await assert.rejects(large, refusal("RESOURCE_EXHAUSTED", /one connection may have 65536/));
      const parameters = { name: "nsm-1", tokenID: "sriov-12345678-1234-1234-1234-123456789abc" };
      const invented = scene.direct(pod, { parameters }).request();
      await assert.rejects(invented, refusal("NOT_FOUND", /no resource of this node gave it out/));
      assert.equal(await bytes(), before);
      await pod.client.close();
    },
  },
);
