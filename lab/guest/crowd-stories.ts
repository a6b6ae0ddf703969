import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import type { Client } from "../../sandbox/client.ts";
import type { SandboxPod } from "../../sandbox/sandbox.ts";
import { VFS_PER_ADAPTER } from "./hardware.ts";
import { wholeNode, wish } from "./kernel-stories.ts";
import type { LabNode } from "./node.ts";

const VLAN = 500;

/** Everybody at once, again and again. */
export function crowdStories(rounds: number): Readonly<Record<string, (node: LabNode) => Promise<void>>> {
  const count = 2 * VFS_PER_ADAPTER;
  return {
    [`all ${count} functions are requested at once and closed at once, ${rounds} rounds, and nothing is left`]: (
      node,
    ) => everybody(node, rounds),
  };
}

async function everybody(node: LabNode, rounds: number): Promise<void> {
  const before = await wholeNode();
  const pods: SandboxPod[] = [];
  for (const side of ["left", "right"] as const) {
    for (let number = 0; number < VFS_PER_ADAPTER; number++) {
      pods.push(await node.pod(side, wish(`0a:55:44:33:26:${side === "left" ? "1" : "2"}${number}`, VLAN)));
    }
  }
  // Straight to the forwarder: it is the one to be kept busy.
  const clients = pods.map((pod) => node.directClient(pod));
  await round(node, clients); // connections between the peers are made once, and stay
  const open = openFilesOf(node);
  for (let count = 1; count < rounds; count++) await round(node, clients);
  assert.deepEqual(openFilesOf(node), open);
  assert.deepEqual(await wholeNode(), before);
  await node.endPods(...pods);
}

async function round(node: LabNode, clients: readonly Client[]): Promise<void> {
  await node.stopwatch.time("request_14_at_once", () => Promise.all(clients.map((client) => client.request())));
  const given = clients.map(({ connection }) => connection?.mechanism?.parameters["pciAddress"]);
  assert.equal(new Set(given).size, clients.length);
  await node.stopwatch.time("close_14_at_once", () => Promise.all(clients.map((client) => client.close())));
}

/** What the forwarder has open: namespaces, and files that are neither sockets nor its event loop's. */
function openFilesOf({ forwarder }: LabNode): { readonly namespaces: number; readonly files: readonly string[] } {
  const folder = `/proc/${forwarder.pid}/fd`;
  const targets = readdirSync(folder).map((fd) => {
    try {
      return readlinkSync(`${folder}/${fd}`);
    } catch {
      return ""; // closed since
    }
  });
  return {
    namespaces: targets.filter((target) => target.startsWith("net:")).length,
    files: targets.filter((target) => target.startsWith("/") && !target.startsWith("/out/")).sort(),
  };
}
