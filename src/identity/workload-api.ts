import { type Backoff, type Clock, createBackoff, type Random } from "../async/index.ts";
import { SpiffeWorkloadAPI } from "../gen/workload_pb.ts";
import { type MessageLimit, parseTarget, RpcClient, RpcError, type Transport } from "../rpc/index.ts";
import type { Log } from "../telemetry/index.ts";
import { IdentityError } from "./error.ts";
import { readX509Context, type SvidChoice, type X509Context } from "./read-svid.ts";

export interface WatchOptions {
  /** Address of the agent: "unix:///run/spire/sockets/agent.sock" or "tcp://127.0.0.1:8081". */
  readonly socket: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly transport?: Transport | undefined;
  readonly random?: Pick<Random, "fraction"> | undefined;
  /** Consulted at each answer. */
  choice(): SvidChoice;
  /** Every answer that could be read. */
  onContext(context: X509Context): void;
  /** Why there is none at the moment, in words for the operator: the stream broke, or its answer is of no use. */
  onProblem(problem: string): void;
}

const FIRST_RETRY_MS = 100;
/** An agent that restarts is back within seconds, and one local socket costs little to try. */
const LONGEST_RETRY_MS = 5000;
const DIAL_TIMEOUT_MS = 5000;

/** Without it the agent answers INVALID_ARGUMENT: it proves that no browser was tricked into calling (SPIFFE). */
const securityHeader = { "workload.spiffe.io": "true" };

/**
 * Checks an address of the Workload API. Done before anything is tried, so that a typing error ends the start at once.
 * @throws {IdentityError} kind "bad-socket"
 */
export function checkWorkloadSocket(text: string): string {
  try {
    if (text === "") throw new Error("it is empty; want unix:///path/of/agent.sock");
    parseTarget(text);
    return text;
  } catch (error) {
    throw new IdentityError({ kind: "bad-socket", text, problem: (error as Error).message }, { cause: error });
  }
}

/** All that clients written in Go read by default (grpc-go, defaultClientMaxReceiveMessageSize): bundles of many trust domains. */
const ANSWER_LIMIT: MessageLimit = { bytes: 4 * 1024 * 1024, elements: 16_384 };

/** Follows our SVID and the trust bundles until the signal is aborted, through every death of the agent. Never throws. */
export async function watchX509Context(options: WatchOptions, signal: AbortSignal): Promise<void> {
  const { clock, log, transport, random } = options;
  const client = new RpcClient({
    transport,
    log,
    clock,
    dialTimeoutMs: DIAL_TIMEOUT_MS,
    idleMs: DIAL_TIMEOUT_MS,
    limits: { maxMessageBytes: ANSWER_LIMIT.bytes },
    answerLimit: () => ANSWER_LIMIT,
  });
  const backoff = createBackoff({ firstMs: FIRST_RETRY_MS, limitMs: LONGEST_RETRY_MS, random: random?.fraction });
  while (!signal.aborted) {
    try {
      await follow(client, options, backoff, signal);
      options.onProblem("the agent has ended the stream");
    } catch (error) {
      if (!signal.aborted) options.onProblem(explain(error));
    }
    await clock.sleep(backoff.nextMs(), signal).catch(() => {}); // aborted: the loop ends
  }
  await client.close();
}

async function follow(client: RpcClient, options: WatchOptions, backoff: Backoff, signal: AbortSignal): Promise<void> {
  const method = SpiffeWorkloadAPI.method.fetchX509SVID;
  for await (const response of client.stream(options.socket, method, {}, { signal, metadata: securityHeader })) {
    try {
      options.onContext(readX509Context(response, options.choice()));
      backoff.reset();
    } catch (error) {
      if (!(error instanceof IdentityError)) throw error;
      options.onProblem(error.message); // the stream continues: the next answer may be good
    }
  }
}

function explain(error: unknown): string {
  if (!(error instanceof RpcError)) return (error as Error).message;
  const said = error.message;
  switch (error.code) {
    case "PERMISSION_DENIED":
      return (
        `the SPIRE agent issues no identity to this process (${said}): make sure that a registration entry matches this ` +
        "pod, and that the agent has received it"
      );
    case "UNAVAILABLE":
      return `no SPIRE agent answers there (${said}): is it running, and is the folder of its socket mounted here?`;
    default:
      return `the SPIRE agent answered ${error.code} (${said})`;
  }
}
