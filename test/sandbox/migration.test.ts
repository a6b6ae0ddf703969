// The Go original gives way to this forwarder, with connected clients. Each keeps its VF and its traffic, whatever dies on the way.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import type { Client } from "../../sandbox/nsm/client.ts";
import type { SandboxPod } from "../../sandbox/sandbox.ts";
import { needs } from "../needs.ts";
import { BystanderPings } from "./scenes/bystander-pings.ts";
import { CrashScene } from "./scenes/crash-scene.ts";
import { forgetState, withoutMarks } from "./scenes/left-by-original.ts";
import { LINKS, refusal } from "./scenes/story.ts";

const shared = CrashScene.shared();

/** A client that is connected, by a forwarder that has left nothing else. */
interface Left {
  readonly pod: SandboxPod;
  readonly client: Client;
  readonly address: string;
  readonly links: unknown;
  readonly pings: BystanderPings;
}

/** Plays it from the moment in which this forwarder is there; all pings of the pod are answered. */
function story(name: string, scenario: (crash: CrashScene, left: Left) => Promise<void>): void {
  test(name, async (t) => {
    if (!needs(t, ...LINKS)) return;
    await shared.run(async (crash) => {
      const before = await crash.scene.dump();
      const pod = await crash.scene.pod();
      const client = crash.scene.direct(pod);
      await client.request();
      const { address } = await crash.scene.vfOf(client);
      await crash.restart(async () => {
        forgetState(crash);
        await withoutMarks(pod);
      });
      await crash.refreshBystander();
      const pings = new BystanderPings({ ...pod, client });
      await scenario(crash, { pod, client, address, links: await linksOf(pod), pings });
      const pinged = await pings.stop();
      assert.ok(pinged.sent > 1);
      assert.equal(pinged.lost, 0);
      await client.close({ timeoutMs: 60_000 });
      await crash.checks(
        () => "closed",
        () => crash.isAsBefore(before),
      );
      assert.deepEqual(await pod.pod.links(), []);
    });
  });
}

/** A route of ours stands beside the same one without our mark, and goes with the link as that does. */
async function linksOf({ pod }: SandboxPod): Promise<unknown> {
  return (await pod.links()).map((link) => ({ ...link, routes: [...new Set(link.routes)] }));
}

async function keeps({ scene }: CrashScene, { pod, client, address, links }: Left): Promise<void> {
  assert.deepEqual(await linksOf(pod), links);
  assert.equal((await scene.vfOf(client)).address, address);
}

describe("a client of the Go original", () => {
  after(() => shared.close());

  story("keeps its VF when it heals, and gives it back clean when it closes", async (crash, left) => {
    const { changes } = crash.scene.sandbox;
    const changed = changes.seen.length;
    await left.client.request({ timeoutMs: 60_000 });
    await keeps(crash, left);
    assert.deepEqual(changes.seen.slice(changed), []);
    await left.client.request({ timeoutMs: 60_000 });
    await keeps(crash, left);
  });

  story("keeps it though this forwarder is killed before it heals, and after", async (crash, left) => {
    await crash.restart();
    await left.client.request({ timeoutMs: 60_000 });
    await keeps(crash, left);
    await crash.restart();
    await left.client.request({ timeoutMs: 60_000 });
    await keeps(crash, left);
  });

  story("keeps it when its Request fails, once and again", async (crash, left) => {
    const alter: NonNullable<Parameters<Client["request"]>[0]>["alter"] = ({ connection }) => {
      if (connection) connection.networkService = "served-by-none";
      if (connection) connection.networkServiceEndpointName = "";
    };
    for (const _ of [1, 2]) {
      await assert.rejects(left.client.request({ alter }), refusal("NOT_FOUND", /served-by-none/));
      assert.deepEqual(await linksOf(left.pod), left.links);
    }
    await left.client.request({ timeoutMs: 60_000 });
    await keeps(crash, left);
  });
});
