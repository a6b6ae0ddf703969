import type { GuestPlan } from "../topologies.ts";
import { LabNode } from "./node.ts";
import { Stopwatch, tell } from "./telling.ts";
import { within } from "./waiting.ts";

const STORY_LIMIT_MS = 600_000;
const START_LIMIT_MS = 180_000;
const PUT_RIGHT_LIMIT_MS = 180_000;

/** One scenario: tells its stories one after the other. */
export type Scenario = (stage: Stage) => Promise<void>;

/** Where the scenarios of one guest happen: on one node, which the first one that wants it starts. */
export class Stage {
  readonly plan: GuestPlan;
  readonly stopwatch = new Stopwatch();
  #scenario = "guest";
  #node: Promise<LabNode> | undefined;

  constructor(plan: GuestPlan) {
    this.plan = plan;
  }

  /** The node with the running forwarder. */
  node(): Promise<LabNode> {
    this.#node ??= within(START_LIMIT_MS, "the start of the node", LabNode.open(this.stopwatch, this.#logLevel));
    return this.#node;
  }

  /** In a crowd a line for each step would cost as much as the step. */
  get #logLevel(): "INFO" | "DEBUG" {
    return this.plan.topology.name === "crowd" ? "INFO" : "DEBUG";
  }

  /**
   * Tells the host how it went. A failure does not end the others, and the node is put right after it; a story that does not end
   * ends the guest, for it would be in the way of all that follow in it: the host boots another one for those.
   */
  async story(name: string, work: () => Promise<void>): Promise<void> {
    const startedAt = performance.now();
    const report = (error: string | undefined) => {
      const ms = Math.round(performance.now() - startedAt);
      tell({ kind: "test", scenario: this.#scenario, name, ms, ...(error !== undefined && { error }) });
    };
    const limit = setTimeout(() => {
      report(`it did not end within ${STORY_LIMIT_MS / 1000} s`);
      process.exit(1);
    }, STORY_LIMIT_MS);
    const error = await work().then(() => undefined, textOf);
    clearTimeout(limit);
    report(error);
    if (error !== undefined) await this.#putRight();
  }

  /** What cannot be put right shows in the stories that follow. */
  async #putRight(): Promise<void> {
    try {
      const node = await this.#node;
      if (node) await within(PUT_RIGHT_LIMIT_MS, "putting the node right", node.putRight());
    } catch (error) {
      process.stderr.write(`after a failure: ${textOf(error)}\n`);
    }
  }

  /** Stories that each want the node. */
  async stories(stories: Readonly<Record<string, (node: LabNode) => Promise<void>>>): Promise<void> {
    for (const [name, work] of Object.entries(stories)) {
      await this.story(name, async () => {
        const node = await this.node();
        await work(node).finally(() => node.endLeftPods());
      });
    }
  }

  async scenario(name: string, scenario: Scenario): Promise<void> {
    const startedAt = performance.now();
    this.#scenario = name;
    try {
      await scenario(this);
    } catch (error) {
      await this.story("is told to its end", async () => {
        throw error;
      });
    }
    tell({ kind: "scenario", scenario: name, ms: Math.round(performance.now() - startedAt) });
  }

  async end(): Promise<void> {
    this.#scenario = "guest";
    if (this.#node !== undefined) {
      await this.story("the forwarder ends when it is asked to", async () => {
        const how = await (await this.node()).stop();
        if (how !== "exit status 0") throw new Error(`It ended with ${how}`);
      });
    }
    tell({ kind: "figures", figures: this.stopwatch.figures });
    tell({ kind: "done" });
  }
}

/** What went wrong, for the host; bounded: a serial port is slow. */
export function textOf(error: unknown): string {
  return (error instanceof Error ? (error.stack ?? error.message) : String(error)).slice(0, 4000);
}
