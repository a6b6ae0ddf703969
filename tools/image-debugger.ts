// Proves that a program in an image waits for a debugger, and continues when one has come.
import { type ChildProcess, spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";

const LIMIT_MS = 120_000;
const POLL_MS = 200;

export interface Debugged {
  /** Runs it in the container: a command and its arguments. */
  readonly command: readonly string[];
  readonly port: number;
  /** What it says only after a debugger has let it continue. */
  readonly says: RegExp;
}

/** @throws {Error} when the inspector does not answer, the program does not wait for it, or does not continue. */
export async function proveDebugger({ command: [name = "", ...args], port, says }: Debugged): Promise<void> {
  const child = spawn(name, args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data: Buffer) => (output += data));
  try {
    const url = await until(
      child,
      () => inspectorAt(port),
      () => `no inspector on port ${port}: ${output}`,
    );
    await sleep(POLL_MS); // what does not wait has time to say so
    if (says.test(output)) throw new Error(`it did not wait for the debugger: ${output}`);
    await letGoOn(url);
    await until(
      child,
      async () => says.test(output) || undefined,
      () => `it did not continue: ${output}`,
    );
  } finally {
    const ended = new Promise((resolve) => child.once("close", resolve));
    child.kill("SIGTERM");
    if (child.exitCode === null && child.signalCode === null) await ended;
  }
}

async function until<T>(child: ChildProcess, observe: () => Promise<T | undefined>, why: () => string): Promise<T> {
  for (let left = LIMIT_MS; left > 0; left -= POLL_MS) {
    const hasEnded = child.exitCode !== null; // what it has said until then counts
    const found = await observe();
    if (found !== undefined) return found;
    if (hasEnded) break;
    await sleep(POLL_MS);
  }
  throw new Error(`Cannot debug in the image: ${why()}`);
}

/** Where the debugger is spoken to; undefined while there is no listener. */
async function inspectorAt(port: number): Promise<string | undefined> {
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/json/list`);
    const [target] = (await answer.json()) as readonly { readonly webSocketDebuggerUrl: string }[];
    return target?.webSocketDebuggerUrl;
  } catch {
    return undefined;
  }
}

/** As DevTools does: `--inspect-brk` stops at the first statement even then, and gets the command to resume. */
async function letGoOn(url: string): Promise<void> {
  const socket = new WebSocket(url);
  await new Promise((resolve, reject) => {
    socket.addEventListener("open", resolve, { once: true });
    socket.addEventListener("error", () => reject(new Error(`Cannot speak with the debugger at ${url}`)), {
      once: true,
    });
  });
  let id = 0;
  const send = (method: string) => socket.send(JSON.stringify({ id: ++id, method }));
  socket.addEventListener("message", ({ data }) => {
    if ((JSON.parse(String(data)) as { method?: string }).method === "Debugger.paused") send("Debugger.resume");
  });
  for (const method of ["Debugger.enable", "Runtime.enable", "Runtime.runIfWaitingForDebugger"]) send(method);
}
