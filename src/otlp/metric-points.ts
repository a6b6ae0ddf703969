// Metrics as they are, in OTLP's form: https://opentelemetry.io/docs/specs/otel/metrics/data-model/.
import type { MessageInitShape } from "@bufbuild/protobuf";
import { AggregationTemporality, type HistogramDataPointSchema, type MetricSchema } from "../gen/otlp_metrics_pb.ts";
import type { MetricReading, Sample } from "../telemetry/index.ts";
import { attributesOf } from "./attributes.ts";

type Metric = MessageInitShape<typeof MetricSchema>;

/** Since when counters count and until when, in ns since 1970. */
export interface Span {
  readonly startTimeUnixNano: bigint;
  readonly timeUnixNano: bigint;
}

/** Every metric with its points; those without any are left out. */
export function metricPoints(readings: readonly MetricReading[], span: Span): Metric[] {
  return readings.filter(({ samples }) => samples.length > 0).map((reading) => metricOf(reading, span));
}

function metricOf({ name, help: description, kind, samples }: MetricReading, span: Span): Metric {
  const aggregationTemporality = AggregationTemporality.CUMULATIVE;
  if (kind === "histogram") {
    const value = { dataPoints: histogramPoints(samples, span), aggregationTemporality };
    return { name, description, data: { case: "histogram", value } };
  }
  const dataPoints = samples.map((sample) => ({
    ...span,
    attributes: attributesOf(sample.labels),
    value: { case: "asDouble", value: sample.value } as const,
  }));
  if (kind === "gauge") return { name, description, data: { case: "gauge", value: { dataPoints } } };
  return { name, description, data: { case: "sum", value: { dataPoints, aggregationTemporality, isMonotonic: true } } };
}

/** Prometheus reports sum, count and growing buckets as samples of their own; here they are one point. */
function histogramPoints(samples: readonly Sample[], span: Span): MessageInitShape<typeof HistogramDataPointSchema>[] {
  const groups = Map.groupBy(samples, ({ labels: { le: _, ...labels } }) => JSON.stringify(labels));
  return [...groups.values()].map((group) => {
    const { le: _, ...labels } = group[0]?.labels ?? {};
    const buckets = group.filter(({ part }) => part === "bucket");
    const growing = buckets.map(({ value }) => value);
    const partOf = (part: Sample["part"]) => group.find((sample) => sample.part === part)?.value ?? 0;
    return {
      ...span,
      attributes: attributesOf(labels),
      count: BigInt(partOf("count")),
      sum: partOf("sum"),
      bucketCounts: growing.map((value, at) => BigInt(value - (growing[at - 1] ?? 0))),
      explicitBounds: buckets.map(({ labels: { le } }) => Number(le)).filter(Number.isFinite), // the last is +Inf
    };
  });
}
