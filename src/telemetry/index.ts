// What the outside may see of the process: logs, metrics, health.
// It knows no subject of the forwarder: each room declares its own metrics and health conditions beside its code.
// Start reading at log.ts; tests take recordingLog() of recording-log.ts or silentLog, createMetrics() and a Health of their own.
export { createLog, type LogOptions } from "./create-log.ts";
export { type Ailment, type Condition, type ConditionSpec, Health, type Severity } from "./health.ts";
export { isTold, type Log, type LogFields, type LogLevel, logLevels, type RootLog } from "./log.ts";
export {
  type Counter,
  createMetrics,
  type Gauge,
  type GaugeSpec,
  type Histogram,
  type HistogramSpec,
  type LabelSets,
  type LabelValues,
  type MetricReading,
  type MetricSpec,
  type Metrics,
  ofNode,
  type Sample,
} from "./metrics.ts";
export { silentLog } from "./silent-log.ts";
export { type LogListener, tapLog } from "./tap.ts";
export { outcomes, timed } from "./timed.ts";
export { noTracer, type SpanFacts, type Tracer } from "./tracer.ts";
export { type Trouble, Troubles } from "./troubles.ts";
