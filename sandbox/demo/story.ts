import type { Server } from "node:net";
import type { Clock } from "../../src/async/index.ts";
import { createLog, silentLog } from "../../src/telemetry/index.ts";
import { commonStandIns } from "../nic/sysfs.ts";
import { PodCgroups } from "../pod/pod-cgroups.ts";
import { closeSteps, connectSteps, refreshSteps } from "./connection-steps.ts";
import { pfHeadings, pfRows, pictureOf, podHeadings, podRows } from "./node-picture.ts";
import { leadToPage } from "./page-door.ts";
import type { Screen } from "./screen.ts";
import { Stage } from "./stage.ts";
import { nodeSteps, startSteps } from "./start-steps.ts";
import { Steps } from "./steps.ts";
import { vfioSteps } from "./vfio-steps.ts";

/** Well within the ten minutes that the peers' tokens live. */
const REFRESH_MS = 60_000;

export interface DemoContext {
  readonly isOnce: boolean;
  readonly isLogShown: boolean;
  /** Why there are no real links; undefined when there are. */
  readonly whyNoLinks: string | undefined;
  /** Listens where the audience can reach it; undefined where it reaches the page itself. */
  readonly pageDoor: Server | undefined;
  readonly screen: Screen;
  readonly clock: Clock;
  /** Aborted when the person wants to leave. */
  readonly stop: AbortSignal;
}

const connectionPhases = (stage: Stage) => [
  { heading: "A first pod", steps: connectSteps(stage, 0) },
  { heading: "A second pod", steps: connectSteps(stage, 1) },
  { heading: "A refresh", steps: refreshSteps(stage) },
  { heading: "And back", steps: closeSteps(stage) },
];

interface StageContext extends DemoContext {
  /** Real ones for the pods; undefined where this machine has none for us. */
  readonly cgroups: PodCgroups | undefined;
}

/** Tells the whole story. Returns whether every step held that this machine can run. */
export async function runDemo(context: DemoContext): Promise<boolean> {
  const { screen, clock, stop } = context;
  const log = context.isLogShown ? createLog({ level: "debug" }) : silentLog;
  const cgroups = PodCgroups.make();
  const machine = { realLinks: context.whyNoLinks === undefined, ...(cgroups && { vfioStandIns: commonStandIns }) };
  const stage = new Stage({ machine, cgroups, log, peerLog: silentLog, clock });
  const steps = new Steps(screen, clock, stop);
  await runStory(stage, steps, { ...context, cgroups });
  if (steps.held && !context.isOnce && !stop.aborted) await stayUp(stage, context);
  screen.heading("The end");
  await steps.runAnyway({ title: "taken down", run: () => takeDown(stage, cgroups) });
  screen.heading(steps.verdict);
  return steps.held;
}

async function runStory(stage: Stage, steps: Steps, { screen, whyNoLinks, cgroups }: StageContext): Promise<void> {
  screen.heading("SR-IOV forwarder of Network Service Mesh, on a pretend node");
  screen.text(
    "The NIC is pretended; everything else is real: unix sockets with passed descriptors, mutual TLS with SPIFFE identities, " +
      "gRPC, rtnetlink and network namespaces. Each step is checked against the node itself.",
  );
  screen.heading("The node");
  await steps.run(nodeSteps(stage));
  if (steps.isUnbroken) screen.table(pfHeadings, pfRows(stage.before));
  screen.heading("The forwarder starts");
  await steps.run(startSteps(stage));
  for (const { heading, steps: phase } of connectionPhases(stage)) {
    screen.heading(heading);
    if (whyNoLinks === undefined) await steps.run(phase);
    else steps.leaveOut(phase, "needs real links");
    if (steps.isUnbroken && heading === "A second pod") await showPods(stage, screen);
  }
  if (whyNoLinks !== undefined) screen.text(`No real links here: ${whyNoLinks}. Run it as root to see the rest.`);
  else if (steps.isUnbroken) screen.table(pfHeadings, pfRows(await pictureOf(stage.sandbox.machine)));
  screen.heading("A pod that wants VFIO");
  const vfio = vfioSteps(stage, cgroups);
  if (cgroups) await steps.run(vfio);
  else steps.leaveOut(vfio, "needs root and device cgroups of version 1");
}

async function showPods(stage: Stage, screen: Screen): Promise<void> {
  const picture = await pictureOf(stage.sandbox.machine);
  screen.table(pfHeadings, pfRows(picture));
  screen.table(podHeadings, await podRows(picture, stage.pods));
}

async function takeDown(stage: Stage, cgroups: PodCgroups | undefined): Promise<string> {
  await stage.close();
  await cgroups?.close();
  return "forwarder, peers, links, namespaces, cgroups, sockets and files";
}

/** Stays up with the status page, and a connection for it to show, until the person leaves. */
async function stayUp(stage: Stage, { screen, stop, clock, whyNoLinks, pageDoor }: DemoContext): Promise<void> {
  const { adminUrl } = await stage.forwarder();
  const pods = whyNoLinks === undefined ? stage.pods.slice(0, 2) : [];
  const door = adminUrl !== undefined && pageDoor !== undefined ? leadToPage(pageDoor, adminUrl) : undefined;
  screen.heading(`Open in a browser: ${door?.url ?? adminUrl ?? "the status page is off"}`);
  screen.text("The node as a picture, live. For programs: /status.json, /metrics and /readyz beside it.");
  if (pods.length > 0) {
    const names = pods.map(({ name }) => name).join(" and ");
    screen.text(`${names} connect again, for the page to show, and refresh every minute.`);
  }
  screen.text("Ctrl-C takes everything down.");
  while (!stop.aborted) {
    for (const { client } of pods) await client.request();
    await clock.sleep(REFRESH_MS, stop).catch(() => {}); // the signal ends it
  }
  door?.close();
  for (const { client } of pods) await client.close();
}
