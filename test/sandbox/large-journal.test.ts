// What a peer could leave in the journal before connections had a bound: the next forwarder starts all the same.
import assert from "node:assert/strict";
import { appendFileSync, readFileSync, statSync } from "node:fs";
import { after, describe, type TestContext, test } from "node:test";
import { crc32 } from "node:zlib";
import { create, toBinary } from "@bufbuild/protobuf";
import type { Client } from "../../sandbox/nsm/client.ts";
import { ConnectionSchema, MechanismSchema } from "../../src/gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../../src/gen/networkservice_pb.ts";
import { needs } from "../needs.ts";
import { manyParts } from "../scenes/many-parts.ts";
import { KillScene } from "./scenes/kill-scene.ts";
import { eventually, refusal } from "./scenes/story.ts";

const MIB = 1024 * 1024;
/** What the manifests give the pod. */
const POD_MEMORY_BYTES = 256 * MIB;

/** One record as every version has written it so far. */
function record(key: string, value: unknown): Buffer {
  const payload = Buffer.from(JSON.stringify([key, value]));
  const header = Buffer.from([0x4e, 0x53, 0x4a, 1, 0, 0, 0, 0]);
  header.writeUInt32LE(payload.length, 4);
  const sum = Buffer.alloc(4);
  sum.writeUInt32LE(crc32(payload, crc32(header)));
  return Buffer.concat([header, sum, payload]);
}

/** Of 4 MB, but for its id: protobuf reads two messages one after the other as one. */
const large = toBinary(
  ConnectionSchema,
  create(ConnectionSchema, {
    networkService: "ns",
    labels: Object.fromEntries(Array.from({ length: 1_000 }, (_, index) => [`${index}`, "x".repeat(4_000)])),
    mechanism: { type: "NOOP" },
  }),
);

/** A NOOP connection of a peer that is not the manager. */
function largeNoop(id: string): Buffer {
  const connection = Buffer.concat([toBinary(ConnectionSchema, create(ConnectionSchema, { id })), large]);
  return record(`connection ${id}`, {
    connectionId: id,
    owner: { spiffeId: "spiffe://test/greedy", isManager: false },
    stage: "ready",
    mechanism: "NOOP",
    connection: connection.toString("base64"),
    expiresMs: Number.MAX_SAFE_INTEGER,
  });
}

describe("a journal of 60 connections of 4 MB", () => {
  const shared = KillScene.shared(() => KillScene.open({ vfsPerPf: 2 }));
  after(() => shared.close());

  test("is started from within the pod's memory: what has a VF is kept, and others are served", async (t) => {
    if (!needs(t, "netns", "veth", "bridge")) return;
    await shared.run((scene) => startsWithinMemory(t, scene));
  });

  test("cannot be made any more: peers that take all that they may have leave the others their memory", async (t) => {
    if (!needs(t, "netns", "veth", "bridge")) return;
    await shared.run((scene) => leavesMemory(t, scene));
  });
});

async function startsWithinMemory(t: TestContext, scene: KillScene): Promise<void> {
  const [first, second] = scene.pods;
  if (!first || !second) assert.fail("there are pods");
  const client = scene.direct(first);
  await client.request();
  const path = `${scene.sandbox.folder}/state/journal`;
  await scene.restart(() => {
    for (let index = 0; index < 60; index++) appendFileSync(path, largeNoop(`large-${index}`));
    assert.ok(statSync(path).size > 300 * MIB);
  });
  const peak = scene.forwarder.peakMemoryBytes;
  t.diagnostic(`at most ${Math.round(peak / MIB)} MiB of memory`);
  assert.ok(peak < POD_MEMORY_BYTES, `${peak} bytes`);
  await client.request();
  assert.equal((await first.pod.link("nsm-1"))?.up, true);
  const next = scene.direct(second);
  await next.request();
  await next.close();
  await client.close();
  await eventually(
    () => statSync(path).size,
    (size) => size < MIB,
  );
  const log = readFileSync(`${scene.sandbox.folder}/forwarder.log`, "utf8");
  const reported = log.split("\n").filter((line) => line.includes("journal-over-quota"));
  assert.equal(reported.length, 1);
  assert.match(reported[0] ?? "", /"count":60,.*"limitOf":"connection-bytes"/);
}

async function leavesMemory(t: TestContext, scene: KillScene): Promise<void> {
  const { sandbox } = scene;
  const [pod = assert.fail("there are pods")] = scene.pods;
  await scene.restart(() => {}); // What it took for the story before does not count.
  const greedy: Client[] = [];
  for (const name of ["nsmgr", ...Array.from({ length: 12 }, (_, index) => `greedy-${index}`)]) {
    const manager = { name, actor: sandbox.actor(name) };
    for (let isRefused = false; !isRefused; ) {
      const client = scene.direct(pod, { manager });
      try {
        await client.request({ alter: manyPartsWithoutVf });
        greedy.push(client);
      } catch (error) {
        refusal("RESOURCE_EXHAUSTED", /may have/)(error);
        isRefused = true;
      }
    }
  }
  const peak = scene.forwarder.peakMemoryBytes;
  t.diagnostic(`${greedy.length} connections, at most ${Math.round(peak / MIB)} MiB of memory`);
  assert.ok(greedy.length > 20);
  assert.ok(peak < POD_MEMORY_BYTES, `${peak} bytes`);
  const client = scene.direct(pod);
  await client.request();
  await client.close();
  // As large as the Request was. The others end with the forwarder.
  await greedy.at(-1)?.close({ alter: manyPartsWithoutVf });
}

function manyPartsWithoutVf(request: NetworkServiceRequest): void {
  request.mechanismPreferences = [create(MechanismSchema, { cls: "LOCAL", type: "NOOP" })];
  if (request.connection) manyParts(request.connection);
}
