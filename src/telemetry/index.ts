// What the outside may see of the process: logs, metrics, health.
// Of the forwarder it knows the codes of health conditions only (health-conditions.ts); each module declares its own metrics.
// Start reading at log.ts; tests take recordingLog() of recording-log.ts or silentLog, createMetrics() and a Health of their own.
export { createLog } from "./create-log.ts";
export { type Condition, Health, type RaisedCondition } from "./health.ts";
export { healthConditions } from "./health-conditions.ts";
export { isLogged, type Log, type LogFields, type LogLevel, type RootLog } from "./log.ts";
export {
  type Counter,
  createMetrics,
  type Histogram,
  type MetricReading,
  type Metrics,
  ofNode,
  type Sample,
} from "./metrics.ts";
export { type PeerLogLimits, PeerLogs } from "./peer-logs.ts";
export { rareWarnings } from "./rare-warnings.ts";
export { silentLog } from "./silent-log.ts";
export { tapLog } from "./tap.ts";
export { outcomes, timed } from "./timed.ts";
export { noTracer, type SpanFacts, type Tracer } from "./tracer.ts";
export { Troubles } from "./troubles.ts";
