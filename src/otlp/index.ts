// Traces and metrics for an OpenTelemetry collector: OTLP over our own gRPC. Loaded only when TELEMETRY is on.
// Knows the wire form and W3C's trace context; knows nothing of what the spans and metrics mean, and decides nothing: a
// collector that is slow, wrong or away changes nothing but what is seen of us. Start reading at exporter.ts.
export { OtlpExporter } from "./exporter.ts";
export { otlpSettings } from "./settings.ts";
