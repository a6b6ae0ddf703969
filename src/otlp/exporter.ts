import type { Clock } from "../async/index.ts";
import { MetricsService } from "../gen/otlp_metrics_pb.ts";
import { TraceService } from "../gen/otlp_trace_pb.ts";
import { type Counter, type Log, type Metrics, noTracer, type Tracer } from "../telemetry/index.ts";
import { attributesOf } from "./attributes.ts";
import { Collector } from "./collector.ts";
import { metricPoints } from "./metric-points.ts";
import type { OtlpSettings } from "./settings.ts";
import { type FinishedSpan, spanTracer } from "./span-tracer.ts";

interface OtlpOptions {
  readonly settings: OtlpSettings;
  /** What made the data: this program. */
  readonly scope: { readonly name: string; readonly version: string };
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
}

const TRACES_INTERVAL_MS = 5_000; // OTEL_BSP_SCHEDULE_DELAY
/** Spans that wait; what comes then is dropped and counted (OTEL_BSP_MAX_QUEUE_SIZE). */
const LONGEST_QUEUE = 2_048;
const LARGEST_BATCH = 512; // OTEL_BSP_MAX_EXPORT_BATCH_SIZE

/**
 * Sends spans and metrics until it is stopped. Never throws and never waits for the collector: one that cannot be reached costs a
 * bounded queue, a warning when it goes and a line when it is back.
 */
export class OtlpExporter {
  readonly tracer: Tracer;
  readonly #options: OtlpOptions;
  readonly #traces: Collector | undefined;
  readonly #metrics: Collector | undefined;
  readonly #stopped = new AbortController();
  readonly #dropped: Counter<Record<never, never>>;
  readonly #startNs: bigint;
  readonly #loops: readonly Promise<void>[];
  #waiting: FinishedSpan[] = [];

  constructor(options: OtlpOptions) {
    const { clock, metrics, settings } = options;
    this.#options = options;
    this.#traces = settings.traces && new Collector(settings.traces, options);
    const isSame = JSON.stringify(settings.traces) === JSON.stringify(settings.metrics);
    this.#metrics = isSame ? this.#traces : settings.metrics && new Collector(settings.metrics, options);
    this.#dropped = metrics.counter({
      name: "nsm_sriov_spans_dropped_total",
      help: "Spans that the collector did not take in time",
    });
    this.#startNs = this.#nowNs();
    const keep = (span: FinishedSpan) => this.#keep(span);
    this.tracer = this.#traces ? spanTracer(clock, keep, { sampler: settings.sampler }) : noTracer;
    this.#loops = [
      ...(this.#traces ? [this.#repeat(TRACES_INTERVAL_MS, () => this.#sendSpans())] : []),
      ...(this.#metrics ? [this.#repeat(settings.metricsIntervalMs, () => this.#sendMetrics())] : []),
    ];
  }

  /** Sends what is left, if the collector takes it within a second. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await Promise.all(this.#loops);
    await Promise.all([this.#traces?.close(), this.#metrics?.close()]);
  }

  #keep(span: FinishedSpan): void {
    if (this.#waiting.length < LONGEST_QUEUE) this.#waiting.push(span);
    else this.#dropped.add({});
  }

  /** One call at a time, also the last one at the stop. */
  async #repeat(intervalMs: number, send: () => Promise<void>): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      await this.#options.clock.sleep(intervalMs, signal).catch(() => {}); // aborted: one last time
      await send();
    }
  }

  async #sendSpans(): Promise<void> {
    while (this.#waiting.length > 0) {
      const spans = this.#waiting.splice(0, LARGEST_BATCH);
      const resourceSpans = [{ resource: this.#resource(), scopeSpans: [{ scope: this.#options.scope, spans }] }];
      if (await this.#traces?.send(TraceService.method.export, { resourceSpans }, this.#stopped.signal)) continue;
      this.#dropped.add({}, spans.length);
      return; // the others wait for the next turn
    }
  }

  async #sendMetrics(): Promise<void> {
    const span = { startTimeUnixNano: this.#startNs, timeUnixNano: this.#nowNs() };
    const metrics = metricPoints(await this.#options.metrics.read(), span);
    const scopeMetrics = [{ scope: this.#options.scope, metrics }];
    const resourceMetrics = [{ resource: this.#resource(), scopeMetrics }];
    await this.#metrics?.send(MetricsService.method.export, { resourceMetrics }, this.#stopped.signal);
  }

  #resource() {
    return { attributes: attributesOf(this.#options.settings.resource) };
  }

  #nowNs(): bigint {
    return BigInt(Math.round(this.#options.clock.now())) * 1_000_000n;
  }
}
