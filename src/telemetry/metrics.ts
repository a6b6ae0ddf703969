import {
  collectDefaultMetrics,
  type MetricObjectWithValues,
  type MetricValue,
  Counter as PromCounter,
  Gauge as PromGauge,
  Histogram as PromHistogram,
  Registry,
} from "prom-client";

/** In place of a label's values: what this node and its configuration name, for example PCI addresses. Never a peer's text. */
export const ofNode = "of-node";

/** Every label with all values it may ever have: a peer's text must not make new time series. */
type LabelSets = Readonly<Record<string, readonly string[] | typeof ofNode>>;

/** One value for each label. */
type LabelValues<L extends LabelSets> = {
  readonly [K in keyof L]: L[K] extends readonly (infer V extends string)[] ? V : string;
};

/** What every metric has. */
interface MetricSpec<L extends LabelSets> {
  /** Prometheus name with its unit: `nsm_sriov_…_total`, `…_seconds`, `…_bytes`. */
  readonly name: string;
  readonly help: string;
  readonly labels?: L;
}

/** Counts up. */
export interface Counter<L extends LabelSets> {
  add(labels: LabelValues<L>, count?: number): void;
}

/** A value that goes up and down. */
interface Gauge<L extends LabelSets> {
  set(labels: LabelValues<L>, value: number): void;
}

/** How long things took or how big they were. */
export interface Histogram<L extends LabelSets> {
  observe(labels: LabelValues<L>, value: number): void;
}

/** A gauge that is set, or read at each scrape. */
interface GaugeSpec<L extends LabelSets> extends MetricSpec<L> {
  /** Called at each scrape, for values that are a view of something: sets every label again. Values not set are gone. */
  readonly collect?: (gauge: Gauge<L>) => void;
}

/** A histogram and its buckets. */
interface HistogramSpec<L extends LabelSets> extends MetricSpec<L> {
  /** Upper borders of the buckets, in the metric's unit; those of a request (1 ms to 30 s) by default. */
  readonly buckets?: readonly number[];
}

/** Where modules declare their metrics, each beside the code that uses it. A name declared again gives the metric that is there. */
export interface Metrics {
  counter<const L extends LabelSets = Record<never, never>>(spec: MetricSpec<L>): Counter<L>;
  gauge<const L extends LabelSets = Record<never, never>>(spec: GaugeSpec<L>): Gauge<L>;
  histogram<const L extends LabelSets = Record<never, never>>(spec: HistogramSpec<L>): Histogram<L>;
  /** All metrics in Prometheus' text format. */
  text(): Promise<string>;
  /** The same as values. */
  read(): Promise<readonly MetricReading[]>;
  /** Adds memory, CPU, descriptors, garbage collection and event-loop delay of this process. At most once per process. */
  addProcessMetrics(): void;
}

/** One metric as it is now. */
export interface MetricReading {
  readonly name: string;
  readonly help: string;
  readonly kind: "counter" | "gauge" | "histogram";
  readonly samples: readonly Sample[];
}

/** One value; a histogram has one for each bucket (growing, labelled `le`), and its sum and count. */
export interface Sample {
  readonly part: "value" | "bucket" | "sum" | "count";
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const REQUEST_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

/** Value for a label value that its set does not have; the types forbid it, text from outside may bring it about. */
const OTHER = "other";

/** A registry of its own: tests make as many as they like. */
export function createMetrics(): Metrics {
  const registry = new Registry();
  const known = new Map<string, unknown>();
  const once = <T>(name: string, make: () => T): T => {
    if (!known.has(name)) known.set(name, make());
    return known.get(name) as T;
  };
  const common = (spec: MetricSpec<LabelSets>) => ({
    name: spec.name,
    help: spec.help,
    labelNames: Object.keys(spec.labels ?? {}),
    registers: [registry],
  });
  return {
    counter: (spec) =>
      once(spec.name, () => {
        const counter = new PromCounter(common(spec));
        return { add: (labels, count = 1) => counter.inc(closed(spec, labels), count) };
      }),
    gauge: (spec) => once(spec.name, () => declareGauge(spec, common(spec))),
    histogram: (spec) =>
      once(spec.name, () => {
        const histogram = new PromHistogram({ ...common(spec), buckets: [...(spec.buckets ?? REQUEST_SECONDS)] });
        return { observe: (labels, value) => histogram.observe(closed(spec, labels), value) };
      }),
    text: () => registry.metrics(),
    read: async () => (await registry.getMetricsAsJSON()).map(readingOf),
    // 100 ms instead of 10: a sampling timer that wakes an idle process a hundred times a second costs more than it shows.
    addProcessMetrics: () => collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 }),
  };
}

function readingOf({ name, help, type, values }: MetricObjectWithValues<MetricValue<string>>): MetricReading {
  const kind = type.toString() === "counter" || type.toString() === "histogram" ? type.toString() : "gauge";
  const samples = values.map((sample) => {
    const { metricName = name } = sample as { readonly metricName?: string };
    const part = metricName === name ? "value" : metricName.slice(name.length + 1);
    const labels = Object.entries(sample.labels).map(([label, of]) => [label, String(of)]);
    return { part: part as Sample["part"], labels: Object.fromEntries(labels), value: sample.value };
  });
  return { name, help, kind: kind as MetricReading["kind"], samples };
}

function declareGauge<L extends LabelSets>(
  spec: GaugeSpec<L>,
  common: { name: string; help: string; labelNames: string[]; registers: Registry[] },
): Gauge<L> {
  const set = (labels: LabelValues<L>, value: number) => gauge.set(closed(spec, labels), value);
  const collect = () => {
    gauge.reset();
    if (common.labelNames.length === 0) gauge.remove(); // what a reset leaves of one without labels is 0
    spec.collect?.({ set });
  };
  const gauge: PromGauge<string> = new PromGauge(spec.collect ? { ...common, collect } : common);
  return { set };
}

function closed(spec: MetricSpec<LabelSets>, labels: Readonly<Record<string, string>>): Record<string, string> {
  const rows = Object.entries(spec.labels ?? {}).map(([name, values]) => {
    const value = labels[name];
    const isKnown = value !== undefined && (values === ofNode || values.includes(value));
    return [name, isKnown ? value : OTHER];
  });
  return Object.fromEntries(rows);
}
