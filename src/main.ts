// The program's edge: command line, environment, terminal. Either the forwarder is loaded (run-forwarder.ts) or a command, never both.
import type { WriteStream } from "node:tty";
import { keepAlive, systemClock } from "./async/index.ts";
import type { BudgetFact, PolicyFact, Terminal } from "./commands/index.ts";
import { ConfigError, configRows, inspectConfig, type ParsedConfig, parseConfig } from "./config.ts";
import { memoryShortage } from "./least-memory.ts";
import { fitHeap } from "./process/fit-heap.ts";
import { POOL_THREADS } from "./process/pool-threads.ts";
import { version } from "./version.ts";

/** How wide text is that goes to a file or to another program. */
const COLUMNS_OF_FILES = 110;

const args: readonly string[] = process.argv.slice(2);
// What is awaited here may be a timer alone, which keeps no process alive.
const release = keepAlive();
try {
  if (args.length === 0) await run();
  else await runCommand(args);
} finally {
  release();
}

async function run(): Promise<void> {
  const parsed = readEnvironment();
  if (!parsed) return;
  fitHeap(process.env);
  await reportShortage(parsed);
  // Read when the first thread is needed.
  process.env["UV_THREADPOOL_SIZE"] ??= String(POOL_THREADS);
  const { runForwarder } = await import("./process/run-forwarder.ts");
  await runForwarder(parsed);
}

/** Before the forwarder is loaded: with much too little memory that may take for ever, and nothing else would be said. */
async function reportShortage({ config }: ParsedConfig): Promise<void> {
  const shortage = memoryShortage(process.constrainedMemory());
  if (shortage === undefined) return;
  const { createLog } = await import("./telemetry/index.ts");
  createLog({ level: config.logLevel }).error("memory-too-little", { error: shortage });
}

function readEnvironment(): ParsedConfig | undefined {
  try {
    return parseConfig(process.env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\nSee forwarder --help\n`);
    process.exitCode = 1;
    return undefined;
  }
}

async function runCommand(args: readonly string[]): Promise<void> {
  const { runCommandLine } = await import("./commands/index.ts");
  const { config, problems, warnings } = inspectConfig(process.env);
  const variables = configRows().map(({ names: [name = ""], standard }) => ({ name, standard }));
  const stopping = new AbortController();
  process.once("SIGINT", () => stopping.abort()).once("SIGTERM", () => stopping.abort());
  process.exitCode = await runCommandLine(args, {
    version,
    readBudget,
    readPolicies: () => readPolicies(config.registryClientPolicies),
    environment: { settings: config, problems, warnings, variables },
    out: terminal(process.stdout),
    err: terminal(process.stderr),
    clock: systemClock,
    signal: stopping.signal,
  });
}

async function readBudget(): Promise<BudgetFact> {
  const [{ budgetsFor, describeBudgets }, { processLimits }] = await Promise.all([
    import("./budgets.ts"),
    import("./process/process-limits.ts"),
  ]);
  const limits = await processLimits();
  const { memoryBytes } = limits;
  const budgets = budgetsFor(limits);
  return { memoryBytes, shortage: budgets.shortage, says: describeBudgets(budgets) };
}

async function readPolicies(masks: readonly string[]): Promise<PolicyFact> {
  const { registryPolicies } = await import("./opa/index.ts");
  try {
    const { policies, warnings } = await registryPolicies(masks);
    return { kind: "selected", names: policies.map(({ name }) => name), warnings };
  } catch (error) {
    return { kind: "unusable", problem: error instanceof Error ? error.message : String(error) };
  }
}

function terminal(stream: WriteStream): Terminal {
  // A reader that has seen enough, as in `forwarder check | head`.
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    if (stream !== process.stderr) process.stderr.write(`Cannot write to standard output: ${error.message}\n`);
    process.exit(1);
  });
  return {
    write: (text) => stream.write(text),
    get columns() {
      return stream.columns ?? COLUMNS_OF_FILES;
    },
    get rows() {
      return stream.rows ?? Number.POSITIVE_INFINITY;
    },
    isScreen: stream.isTTY === true,
    // Knows NO_COLOR, FORCE_COLOR and TERM.
    hasColors: stream.isTTY === true && stream.hasColors(),
  };
}
