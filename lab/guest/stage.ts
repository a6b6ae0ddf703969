import type { GuestLine } from "../report.ts";
import type { GuestPlan } from "../topologies.ts";
import { LabNode, type LabNodeOptions } from "./node.ts";
import { report, Stopwatch } from "./telling.ts";
import { within } from "./waiting.ts";

const STORY_LIMIT_MS = 600_000;
const START_LIMIT_MS = 180_000;
const PUT_RIGHT_LIMIT_MS = 180_000;

/** One scenario: tells its stories one after the other. */
export type Scenario = (stage: Stage) => Promise<void>;

/** The outside of a stage. */
export interface StageParts {
  readonly open: (stopwatch: Stopwatch, options: LabNodeOptions) => Promise<LabNode>;
  readonly report: (line: GuestLine) => void;
  /** Ends the guest. */
  readonly exit: (status: number) => never;
}

/** Where the scenarios of one guest happen: on one node, which the first one that wants it starts. */
export class Stage {
  readonly plan: GuestPlan;
  readonly stopwatch = new Stopwatch();
  readonly #parts: StageParts;
  #scenario = "guest";
  #node: Promise<LabNode> | undefined;
  /** Why the node cannot be used any more. */
  #damaged: string | undefined;

  constructor(plan: GuestPlan, parts: StageParts = { open: LabNode.open, report, exit: process.exit }) {
    this.plan = plan;
    this.#parts = parts;
  }

  /** The node with the running forwarder; the options count for the first who wants it. */
  node(options: Partial<LabNodeOptions> = {}): Promise<LabNode> {
    const complete = { logLevel: this.#logLevel, ...options };
    this.#node ??= within(START_LIMIT_MS, "the start of the node", this.#parts.open(this.stopwatch, complete));
    return this.#node;
  }

  /** In a crowd a line for each step would cost as much as the step. */
  get #logLevel(): "INFO" | "DEBUG" {
    return this.plan.topology.name === "crowd" ? "INFO" : "DEBUG";
  }

  /**
   * Reports to the host how it went. A failure does not end the others, and the node is put right after it. Where that fails, the stories
   * that follow in this scenario are not played, which is a failure of each; the guest ends, and the host boots another one for the
   * next scenarios. A story that does not end ends the guest at once.
   */
  async story(name: string, work: () => Promise<void>): Promise<void> {
    const startedAt = performance.now();
    const report = (error: string | undefined) => {
      const ms = Math.round(performance.now() - startedAt);
      this.#parts.report({ kind: "test", scenario: this.#scenario, name, ms, ...(error !== undefined && { error }) });
    };
    if (this.#damaged !== undefined) return report(`not played, for the node was not put right: ${this.#damaged}`);
    const limit = setTimeout(() => {
      report(`it did not end within ${STORY_LIMIT_MS / 1000} s`);
      this.#parts.exit(1);
    }, STORY_LIMIT_MS);
    const error = await work().then(() => undefined, textOf);
    clearTimeout(limit);
    report(error);
    if (error !== undefined) this.#damaged = await this.#putRight();
  }

  /** Why that was not possible. */
  async #putRight(): Promise<string | undefined> {
    try {
      const node = await this.#node;
      if (node) await within(PUT_RIGHT_LIMIT_MS, "putting the node right", node.putRight());
      return undefined;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** Stories that each want the node, and leave no pod to the next one. */
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
      await this.story("is run to its end", async () => {
        throw error;
      });
    }
    // The host takes a scenario without its end for the one that a guest was cut off in.
    if (this.#damaged !== undefined) this.#parts.exit(1);
    this.#parts.report({ kind: "scenario", scenario: name, ms: Math.round(performance.now() - startedAt) });
  }

  async end(): Promise<void> {
    this.#scenario = "guest";
    if (this.#node !== undefined) {
      await this.story("the forwarder ends when it is asked to", async () => {
        const how = await (await this.node()).stop();
        if (how !== "exit status 0") throw new Error(`It ended with ${how}`);
      });
    }
    this.#parts.report({ kind: "figures", figures: this.stopwatch.figures });
    this.#parts.report({ kind: "done" });
  }
}

/** What went wrong, for the host; bounded: a serial port is slow. */
export function textOf(error: unknown): string {
  return (error instanceof Error ? (error.stack ?? error.message) : String(error)).slice(0, 4000);
}
