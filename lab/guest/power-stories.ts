import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readFileSync, watch, writeFileSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import type { Client } from "../../sandbox/nsm/client.ts";
import { SANDBOX_FORWARDER, type SandboxPod } from "../../sandbox/sandbox.ts";
import { MechanismSchema } from "../../src/gen/connection_pb.ts";
import type { LogLine } from "./forwarder-process.ts";
import { untilVfsAreRestored } from "./hardware.ts";
import { contextFor } from "./kernel-stories.ts";
import type { EarlierPod, LabNode, Side } from "./node.ts";
import { readyPowerSwitch } from "./power-switch.ts";
import type { Stage } from "./stage.ts";

const VLAN = 800;
const DISK = "/disk";
const LONG_S = 600;
const STATE = `${DISK}/state`;
const SYNCED = `${DISK}/synced`;
const UNSYNCED = `${DISK}/unsynced`;

/** What is known after the cut of what was before it. */
interface Remembered extends EarlierPod {
  /** The connection that was answered; undefined where none was. */
  readonly connection: string | undefined;
  readonly vf: string | undefined;
}

/** What kubelet knows before the cut, and must know after it. */
interface RememberedDevices {
  readonly devices: readonly string[];
}

/** Continues until the moment, and stops the machine in it. It never comes to its end. */
type Play = (node: LabNode, stop: (pods: readonly Remembered[]) => never) => Promise<void>;

/** At which instants the power is cut, one boot after the other. */
const moments: readonly { readonly says: string; readonly play: Play }[] = [
  { says: "right after the first start", play: afterTheStart },
  { says: "right after a Request was answered", play: afterTheAnswer },
  { says: "within a Request, when the VF is in the pod already", play: withinRequest },
  { says: "while the journal is written again", play: whileRewritten },
];

/**
 * The forwarder's state is on a disk, and the power is cut. Each boot shows what the disk still has of the one before, and continues to
 * the next cut; a moment that is not come to is a failure.
 */
export async function powerCuts(stage: Stage): Promise<void> {
  const { number = 0, remembered = [] } = stage.plan.boot ?? {};
  const facts = remembered as readonly (Remembered | RememberedDevices)[];
  const earlier = facts.filter((fact): fact is Remembered => !("devices" in fact));
  mountDisk(number === 0);
  const before = moments[number - 1];
  const proof = { synced: textOf(SYNCED), unsynced: textOf(UNSYNCED) };
  prepareProof(number);
  if (before) {
    await stage.story(
      `the power is cut ${before.says}: what was answered is known, and no VF has two clients`,
      async () => {
        assert.equal(proof.synced, `boot ${number - 1}`);
        assert.notEqual(proof.unsynced, `boot ${number - 1}`, "the cut has lost nothing");
        const node = await stage.node({ statePath: STATE, earlierPods: earlier });
        const known = facts.flatMap((fact) => ("devices" in fact ? [...fact.devices] : []));
        assert.deepEqual(deviceIds(node), known, "kubelet has got its devices under other ids");
        nothingLost(node, earlier);
        await everyoneIsServed(node, earlier).finally(() => node.endLeftPods());
      },
    );
  }
  const next = moments[number];
  if (!next) return;
  const node = await stage.node({ statePath: STATE });
  await stage.story(`the power is cut ${next.says}`, async () => {
    const stop = readyPowerSwitch();
    const devices = deviceIds(node);
    await next.play(node, (pods) => stop([{ devices }, ...pods]));
    throw new Error("the moment was not come to");
  });
  for (const { says } of moments.slice(number + 1)) {
    await stage.story(`the power is cut ${says}`, async () =>
      assert.fail("not played: the cut before it was not made"),
    );
  }
}

/** What the devices' ids are made of is written by then, and nothing else that a later sync would take to the disk with it. */
async function afterTheStart(_node: LabNode, stop: (pods: readonly Remembered[]) => never): Promise<void> {
  stop([]);
}

async function afterTheAnswer(node: LabNode, stop: (pods: readonly Remembered[]) => never): Promise<void> {
  const answered = await twoServed(node);
  const pod = await node.pod("left", contextFor(mac(3), VLAN));
  const client = node.directClient(pod);
  await client.request();
  stop([...answered, factsOf("left", pod, client)]);
}

async function withinRequest(node: LabNode, stop: (pods: readonly Remembered[]) => never): Promise<void> {
  const answered = await twoServed(node);
  const pod = await node.pod("left", contextFor(mac(4), VLAN));
  const facts = { name: pod.name, side: "left", tokenId: pod.tokenId, connection: undefined, vf: undefined } as const;
  const isInPod = ({ event, change }: LogLine) => event === "netdev-change" && change === "rename to nsm-1";
  const inPod = node.forwarder.nextLine("the VF is in the pod", isInPod);
  await Promise.race([inPod, pod.client.request().then(() => assert.fail("the Request was answered before"))]);
  stop([...answered, facts]);
}

/** A connection that is large makes much history soon. */
async function whileRewritten(node: LabNode, stop: (pods: readonly Remembered[]) => never): Promise<void> {
  const answered = await twoServed(node);
  const watcher = watch(STATE, (_event, name) => {
    // It is written under another name, and takes the journal's when it is whole and synced.
    if (/^journal\../.test(name ?? "") && existsSync(`${STATE}/${name}`)) stop(answered);
  });
  try {
    const client = node.directClient(await node.pod("right", contextFor(mac(5), VLAN)), { parameters: {} });
    for (let count = 0; count < 20; count += 1) {
      await client.request({ alter: makeLarge });
      await client.close();
    }
  } finally {
    watcher.close();
  }
}

function makeLarge(request: Parameters<NonNullable<Parameters<Client["request"]>[0]>["alter"] & {}>[0]): void {
  if (request.connection)
    request.connection.labels = Object.fromEntries(
      Array.from({ length: 12 }, (_, number) => [`large-${number}`, "x".repeat(3_500)]),
    );
  request.mechanismPreferences = [create(MechanismSchema, { cls: "LOCAL", type: "NOOP" })];
}

async function twoServed(node: LabNode): Promise<readonly Remembered[]> {
  return [await served(node, "left", 1), await served(node, "right", 2)];
}

async function served(node: LabNode, side: Side, number: number): Promise<Remembered> {
  const pod = await node.pod(side, contextFor(mac(number), VLAN));
  await pod.client.request();
  return factsOf(side, pod, pod.client);
}

function factsOf(side: Side, { name, tokenId }: SandboxPod, { connection }: Client): Remembered {
  const segment = connection?.path?.pathSegments.find((one) => one.name === SANDBOX_FORWARDER);
  return { name, side, tokenId, connection: segment?.id, vf: connection?.mechanism?.parameters["pciAddress"] };
}

/** The forwarder has found each connection that was answered, with its VF. */
function nothingLost(node: LabNode, earlier: readonly Remembered[]): void {
  const events = new Set(["vf-of-journal-absent", "connection-adopted"]);
  const found = new Set(
    node.forwarder.lines.filter(({ event }) => events.has(event)).map((line) => line["connection"]),
  );
  const lost = earlier.filter(({ connection }) => connection !== undefined && !found.has(connection));
  assert.deepEqual(lost, []);
}

/** The pods of before are served again, and so is another one, each with a VF of its own; and all are restored. */
async function everyoneIsServed(node: LabNode, earlier: readonly Remembered[]): Promise<void> {
  for (const { connection } of earlier) {
    if (connection !== undefined)
      await node.forwarder.line(
        "its end",
        (line) => line.event === "connection-ended" && line["connection"] === connection,
      );
  }
  const pods = earlier.map((one, index) => node.podAgain(one, contextFor(mac(16 + index), VLAN)));
  for (const side of ["left", "right"] as const) pods.push(await node.pod(side, contextFor(mac(side.length), VLAN)));
  const vfs: (string | undefined)[] = [];
  for (const { client, pod } of pods) {
    const { mechanism } = await client.request();
    vfs.push(mechanism?.parameters["pciAddress"]);
    assert.equal((await pod.link("nsm-1"))?.up, true);
  }
  assert.equal(new Set(vfs).size, pods.length, String(vfs));
  await node.endPods(...pods);
  await untilVfsAreRestored();
}

function mountDisk(isNew: boolean): void {
  if (isNew) execFileSync("mke2fs", ["-q", "-t", "ext4", "/dev/vda"]);
  mkdirSync(DISK, { recursive: true });
  // What is not synced is not written by the kernel itself either, as ext4 does for those who replace a file and forget to sync it: it
  // is lost, however long the cut is in coming.
  execFileSync("mount", ["-t", "ext4", "-o", `noauto_da_alloc,commit=${LONG_S}`, "/dev/vda", DISK]);
  for (const name of ["dirty_expire_centisecs", "dirty_writeback_centisecs"]) {
    writeFileSync(`/proc/sys/vm/${name}`, String(100 * LONG_S));
  }
}

/**
 * A file that is synced, and one that is not: without the second a cut would prove nothing. Before the forwarder starts: a sync takes to the
 * disk all that ext4 has in its journal, and so what the forwarder has forgotten to sync.
 */
function prepareProof(boot: number): void {
  writeFileSync(SYNCED, `boot ${boot}`);
  const file = openSync(SYNCED, "r");
  fsyncSync(file);
  closeSync(file);
  writeFileSync(UNSYNCED, `boot ${boot}`);
}

function textOf(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, "utf8") : undefined;
}

function deviceIds(node: LabNode): readonly string[] {
  return [...node.devices("left"), ...node.devices("right")].map(({ id }) => id).sort();
}

function mac(number: number): string {
  return `0a:55:44:33:30:${number.toString(16).padStart(2, "0")}`;
}
