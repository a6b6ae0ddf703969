import type { DescMessage, DescMethodUnary, MessageInitShape } from "@bufbuild/protobuf";
import type { Clock } from "../async/index.ts";
import { guarded } from "../async/index.ts";
import { MetricsService } from "../gen/otlp_metrics_pb.ts";
import { TraceService } from "../gen/otlp_trace_pb.ts";
import { RpcClient } from "../rpc/index.ts";
import type { Counter, Log, Metrics, Tracer } from "../telemetry/index.ts";
import { attributesOf } from "./attributes.ts";
import { metricPoints } from "./metric-points.ts";
import { type FinishedSpan, spanTracer } from "./span-tracer.ts";

interface OtlpOptions {
  /** `host:port` of the collector, without TLS as in the original: it runs in the same cluster. */
  readonly endpoint: string;
  readonly metricsIntervalMs: number;
  /** Our name and version there. */
  readonly service: { readonly name: string; readonly version: string };
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
}

const TRACES_INTERVAL_MS = 5_000; // OTEL_BSP_SCHEDULE_DELAY
/** Spans that wait; what comes then is dropped and counted (OTEL_BSP_MAX_QUEUE_SIZE). */
const LONGEST_QUEUE = 2_048;
const LARGEST_BATCH = 512; // OTEL_BSP_MAX_EXPORT_BATCH_SIZE
const CALL_LIMIT_MS = 10_000;
const LAST_CALL_LIMIT_MS = 1_000;

/**
 * Sends spans and metrics until it is stopped. Never throws and never waits for the collector: one that cannot be reached costs a
 * bounded queue, a warning when it goes and a line when it is back.
 */
export class OtlpExporter {
  readonly tracer: Tracer;
  readonly #options: OtlpOptions;
  readonly #client: RpcClient;
  readonly #stopped = new AbortController();
  readonly #dropped: Counter<Record<never, never>>;
  readonly #startNs: bigint;
  readonly #loops: readonly Promise<void>[];
  #waiting: FinishedSpan[] = [];
  #problem: string | undefined;

  constructor(options: OtlpOptions) {
    const { clock, log, metrics, metricsIntervalMs } = options;
    this.#options = options;
    this.#client = new RpcClient({ log, clock, dialTimeoutMs: CALL_LIMIT_MS, idleMs: 10 * CALL_LIMIT_MS });
    this.#dropped = metrics.counter({
      name: "nsm_sriov_spans_dropped_total",
      help: "Spans that the collector did not take in time",
    });
    this.#startNs = this.#nowNs();
    this.tracer = spanTracer(clock, (span) => this.#keep(span));
    this.#loops = [
      this.#repeat(TRACES_INTERVAL_MS, (limitMs) => this.#sendSpans(limitMs)),
      this.#repeat(metricsIntervalMs, (limitMs) => this.#sendMetrics(limitMs)),
    ];
  }

  /** Sends what is left, if the collector takes it within a second. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await Promise.all(this.#loops);
    await this.#client.close();
  }

  #keep(span: FinishedSpan): void {
    if (this.#waiting.length < LONGEST_QUEUE) this.#waiting.push(span);
    else this.#dropped.add({});
  }

  /** One call at a time, also the last one at the stop. */
  async #repeat(intervalMs: number, send: (limitMs: number) => Promise<void>): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      await this.#options.clock.sleep(intervalMs, signal).catch(() => {}); // aborted: one last time
      await send(signal.aborted ? LAST_CALL_LIMIT_MS : CALL_LIMIT_MS);
    }
  }

  async #sendSpans(limitMs: number): Promise<void> {
    while (this.#waiting.length > 0) {
      const spans = this.#waiting.splice(0, LARGEST_BATCH);
      const resourceSpans = [{ resource: this.#resource(), scopeSpans: [{ scope: this.#options.service, spans }] }];
      if (await this.#send(TraceService.method.export, { resourceSpans }, limitMs)) continue;
      this.#dropped.add({}, spans.length);
      return; // the others wait for the next turn
    }
  }

  async #sendMetrics(limitMs: number): Promise<void> {
    const span = { startTimeUnixNano: this.#startNs, timeUnixNano: this.#nowNs() };
    const metrics = metricPoints(await this.#options.metrics.read(), span);
    const scopeMetrics = [{ scope: this.#options.service, metrics }];
    const resourceMetrics = [{ resource: this.#resource(), scopeMetrics }];
    await this.#send(MetricsService.method.export, { resourceMetrics }, limitMs);
  }

  /** Whether the collector took it. */
  async #send<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    message: MessageInitShape<I>,
    limitMs: number,
  ): Promise<boolean> {
    // A call under way must not hold up the stop longer than a last one may take.
    const late = new AbortController();
    const stopping = guarded("abort", () => {
      this.#options.clock.after(LAST_CALL_LIMIT_MS, () => late.abort());
    });
    this.#stopped.signal.addEventListener("abort", stopping, { once: true });
    try {
      const options = { timeoutMs: limitMs, signal: late.signal };
      await this.#client.call(`tcp://${this.#options.endpoint}`, method, message, options);
      this.#report(undefined);
      return true;
    } catch (error) {
      this.#report(error instanceof Error ? error.message : String(error));
      return false;
    } finally {
      this.#stopped.signal.removeEventListener("abort", stopping);
    }
  }

  /** Each change once: a collector that is away for a day is no news each five seconds. */
  #report(problem: string | undefined): void {
    const { endpoint, log } = this.#options;
    if (problem !== undefined && this.#problem === undefined) log.warn("collector-lost", { endpoint, problem });
    if (problem === undefined && this.#problem !== undefined) log.info("collector-back", { endpoint });
    this.#problem = problem;
  }

  #resource() {
    const { name, version } = this.#options.service;
    return { attributes: attributesOf({ "service.name": name, "service.version": version }) };
  }

  #nowNs(): bigint {
    return BigInt(Math.round(this.#options.clock.now())) * 1_000_000n;
  }
}
