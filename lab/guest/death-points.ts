import assert from "node:assert/strict";
import type { LogLine } from "./forwarder-process.ts";
import type { LabNode } from "./node.ts";

/** So often the call is made again when it was over before the forwarder was killed. */
const TRIES = 5;

/** An instant within a call, as it is seen from outside the forwarder. */
export interface DeathPoint {
  readonly says: string;
  /** Resolves at that instant. Who is asked by the forwarder then answers nothing until it is dead. */
  readonly reached: (node: LabNode, dead: Promise<void>) => Promise<unknown>;
}

/** From the first one to the last. */
export const requestPoints: readonly DeathPoint[] = [
  { says: "the endpoint has been asked", reached: (node, dead) => endpointCalled(node, "meanwhile", dead) },
  { says: "the VF is in the pod", reached: said(({ change }) => change === "rename to nsm-1") },
  { says: "the VF is configured", reached: said(({ event }) => event === "netdev-attached") },
];
/** To the end of the cleaning, which comes after the answer. */
export const closePoints: readonly DeathPoint[] = [
  { says: "the endpoint has been asked", reached: (node, dead) => endpointCalled(node, "atClose", dead) },
  { says: "its client has left the VF", reached: said(({ event }) => event === "connection-ended") },
  { says: "the driver has made another device", reached: said(({ event }) => event === "driver-bound") },
];

/**
 * Kills the forwarder at that instant of the call. `attempt` makes the call with `dies`, and puts right what it leaves; it is
 * repeated when the call was over sooner than the kill.
 * @throws when the call was never cut off.
 */
export async function untilItDied(
  node: LabNode,
  point: DeathPoint,
  attempt: (dies: (call: () => Promise<unknown>) => Promise<void>) => Promise<void>,
): Promise<void> {
  for (let count = 0; count < TRIES; count += 1) {
    let isCutOff = false;
    await attempt(async (call) => {
      isCutOff = await diesAt(node, point, call);
    });
    if (isCutOff) return;
  }
  assert.fail(`not killed when ${point.says}: each of ${TRIES} calls was answered before`);
}

/** Says whether the call was not over yet. */
async function diesAt(node: LabNode, { reached }: DeathPoint, call: () => Promise<unknown>): Promise<boolean> {
  const { promise: dead, resolve } = Promise.withResolvers<void>();
  let isOver = false;
  try {
    const instant = reached(node, dead);
    const called = call().then(
      () => (isOver = true),
      () => (isOver = true),
    );
    await Promise.race([instant, called]);
    const isCutOff = !isOver;
    await node.killForwarder();
    resolve();
    await called;
    return isCutOff;
  } finally {
    resolve();
  }
}

function said(isIt: (line: LogLine) => boolean): DeathPoint["reached"] {
  return (node) => node.forwarder.nextLine("a step of the call", isIt);
}

function endpointCalled({ sandbox }: LabNode, knob: "meanwhile" | "atClose", dead: Promise<void>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const { knobs } = sandbox.endpoint;
  knobs[knob] = () => {
    resolve();
    return dead;
  };
  void dead.then(() => (knobs[knob] = undefined));
  return promise;
}
