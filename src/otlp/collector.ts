import type { DescMessage, DescMethodUnary, MessageInitShape } from "@bufbuild/protobuf";
import { type Clock, guarded } from "../async/index.ts";
import { readSmallFile } from "../kernel/index.ts";
import { RpcClient, type ServerTls } from "../rpc/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { CollectorTls, SignalSettings } from "./settings.ts";

/** How long the last call may take when we stop. */
const LAST_CALL_LIMIT_MS = 1_000;
const IDLE_MS = 100_000;
const PEM_MEBIBYTES = 1;

/** One collector, as it is spoken to. */
export class Collector {
  readonly #settings: SignalSettings;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #client: RpcClient;
  #problem: string | undefined;

  constructor(settings: SignalSettings, { clock, log }: { readonly clock: Clock; readonly log: Log }) {
    this.#settings = settings;
    this.#clock = clock;
    this.#log = log;
    const { tls, timeoutMs } = settings;
    const serverTls = tls && { serverTls: () => readTls(tls) };
    this.#client = new RpcClient({ log, clock, dialTimeoutMs: timeoutMs, idleMs: IDLE_MS, ...serverTls });
  }

  /** Whether the collector took it. @param stopping aborted when we stop: a call must not hold that up longer than a last one may take */
  async send<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    message: MessageInitShape<I>,
    stopping: AbortSignal,
  ): Promise<boolean> {
    const { target, headers, timeoutMs } = this.#settings;
    const late = new AbortController();
    const stopped = guarded("abort", () => {
      this.#clock.after(LAST_CALL_LIMIT_MS, () => late.abort());
    });
    stopping.addEventListener("abort", stopped, { once: true });
    try {
      const limitMs = stopping.aborted ? Math.min(LAST_CALL_LIMIT_MS, timeoutMs) : timeoutMs;
      const options = { timeoutMs: limitMs, signal: late.signal, metadata: headers };
      await this.#client.call(target, method, message, options);
      this.#report(undefined);
      return true;
    } catch (error) {
      this.#report(error instanceof Error ? error.message : String(error));
      return false;
    } finally {
      stopping.removeEventListener("abort", stopped);
    }
  }

  close(): Promise<void> {
    return this.#client.close();
  }

  /** Each change once: a collector that is away for a day is no news each five seconds. */
  #report(problem: string | undefined): void {
    const { endpoint } = this.#settings;
    if (problem !== undefined && this.#problem === undefined) this.#log.warn("collector-lost", { endpoint, problem });
    if (problem === undefined && this.#problem !== undefined) this.#log.info("collector-back", { endpoint });
    this.#problem = problem;
  }
}

/** @throws {Error} that names a file which cannot be read: the dial fails with it */
async function readTls({ name, roots, certificate, key }: CollectorTls): Promise<ServerTls> {
  const read = async (path: string | undefined) => path && (await readPem(path));
  const [rootsPem, certChainPem, keyPem] = [await read(roots), await read(certificate), await read(key)];
  return { name, rootsPem, certChainPem, keyPem };
}

async function readPem(path: string): Promise<string> {
  try {
    return await readSmallFile(path, PEM_MEBIBYTES);
  } catch (error) {
    throw new Error(error instanceof Error ? error.message : String(error), { cause: error }); // a dial shortens a KernelError
  }
}
