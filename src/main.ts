// The program's edge: command line, environment, terminal. Either the forwarder is loaded (run-forwarder.ts) or a command, never both.
import type { WriteStream } from "node:tty";
import { keepAlive, systemClock } from "./async/index.ts";
import type { Terminal } from "./commands/index.ts";
import { ConfigError, configRows, inspectConfig, type ParsedConfig, parseConfig } from "./config.ts";
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
  // Read when the first thread is needed.
  process.env["UV_THREADPOOL_SIZE"] ??= String(POOL_THREADS);
  const { runForwarder } = await import("./process/run-forwarder.ts");
  await runForwarder(parsed);
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
  const asked = new AbortController();
  process.once("SIGINT", () => asked.abort()).once("SIGTERM", () => asked.abort());
  process.exitCode = await runCommandLine(args, {
    version,
    environment: { settings: config, problems, warnings, variables },
    out: terminal(process.stdout),
    err: terminal(process.stderr),
    clock: systemClock,
    signal: asked.signal,
  });
}

function terminal(stream: WriteStream): Terminal {
  // A reader that has seen enough, as in `forwarder check | head`.
  stream.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 0 : 1));
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
