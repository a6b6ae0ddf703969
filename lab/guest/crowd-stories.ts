import assert from "node:assert/strict";
import type { Client } from "../../sandbox/nsm/client.ts";
import { VFS_PER_ADAPTER } from "./hardware.ts";
import { contextFor, untilAsBefore, wholeNode } from "./kernel-stories.ts";
import { type LeftOver, untilLeftOver, untilSettled } from "./left-over.ts";
import type { LabNode } from "./node.ts";
import type { Stage } from "./stage.ts";

const VLAN = 500;
const COUNT = 2 * VFS_PER_ADAPTER;
const ROUNDS_PER_STORY = 5;

/** All clients at once, again and again. After each round everything is checked: nothing may be left. */
export async function crowd(stage: Stage, rounds: number): Promise<void> {
  const node = await stage.node();
  const before = await wholeNode();
  const clients = await everybody(node);
  let settled: LeftOver | undefined;
  await stage.story(`all ${COUNT} VFs are requested at once and closed at once: the node is as it was`, () =>
    closingAll(clients, async () => {
      await round(node, clients);
      await untilAsBefore(before);
      settled = await untilSettled(node); // what is opened once and kept: connections to peers, files of the kernel
    }),
  );
  for (let first = 1; first <= rounds; first += ROUNDS_PER_STORY) {
    const last = Math.min(first + ROUNDS_PER_STORY - 1, rounds);
    await stage.story(`and again, rounds ${first} to ${last} of ${rounds}: after each nothing is left over`, () =>
      closingAll(clients, async () => {
        settled ??= await untilSettled(node); // the first story has failed
        for (let number = first; number <= last; number += 1) {
          await round(node, clients);
          await untilAsBefore(before);
          await untilLeftOver(node, settled, `after round ${number}`);
        }
      }),
    );
  }
  await node.endLeftPods();
}

/** Leaves no connection to the next story when this one fails. */
export async function closingAll(clients: readonly Client[], work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    await Promise.allSettled(clients.map((client) => client.connection && closed(client)));
    throw error;
  }
}

export async function everybody(node: LabNode): Promise<readonly Client[]> {
  const clients: Client[] = [];
  for (const [byte, side] of (["left", "right"] as const).entries()) {
    for (let number = 0; number < VFS_PER_ADAPTER; number += 1) {
      const pod = await node.pod(side, contextFor(`0a:55:44:33:26:${byte}${number}`, VLAN));
      // Straight to the forwarder: it is the one to be kept busy. On one connection, as those of a manager are.
      clients.push(node.directClient(pod, { rpc: node.managerCalls }));
    }
  }
  return clients;
}

/** All get a VF, and give it back; `when` distinguishes the figures. */
export async function round(node: LabNode, clients: readonly Client[], when = ""): Promise<void> {
  const { stopwatch } = node;
  await stopwatch.time(`request_14_at_once${when}`, () => Promise.all(clients.map((client) => client.request())));
  const given = clients.map(({ connection }) => connection?.mechanism?.parameters["pciAddress"]);
  assert.equal(new Set(given).size, clients.length);
  await stopwatch.time(`close_14_at_once${when}`, () => Promise.all(clients.map(closed)));
  await stopwatch.time(`clean_14_at_once${when}`, () => node.cleaned());
}

/** A guest can be so slow that the forwarder gives up on the endpoint's answer to a Close; a client that gets that error closes again. */
async function closed(client: Client): Promise<void> {
  await client.close().catch((error: Error) => {
    assert.match(error.message, /Close at endpoint .* took longer/);
    return client.close();
  });
}
