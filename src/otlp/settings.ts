// OTEL_* as the specification has it (https://opentelemetry.io/docs/specs/otel/protocol/exporter/), over variables of our own.
import { parseCollectorTarget } from "./collector-target.ts";
import { type Sampler, samplerNamed, standardSampler } from "./sampler.ts";

/** How a collector's certificate is judged, and what it is shown. Paths of PEM files, read again at each dial. */
export interface CollectorTls {
  /** What its certificate must name. */
  readonly name: string;
  /** The authorities that count; those of the system by default. */
  readonly roots: string | undefined;
  readonly certificate: string | undefined;
  readonly key: string | undefined;
}

/** Where one kind of data goes, and how. */
export interface SignalSettings {
  /** As it was written. */
  readonly endpoint: string;
  readonly target: string;
  /** Undefined: in the clear. */
  readonly tls: CollectorTls | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
}

export interface OtlpSettings {
  /** Undefined: not sent. */
  readonly traces: SignalSettings | undefined;
  readonly metrics: SignalSettings | undefined;
  readonly metricsIntervalMs: number;
  readonly sampler: Sampler;
  readonly resource: Readonly<Record<string, string>>;
  /** What is not sent, because its endpoint cannot be used. */
  readonly problems: readonly string[];
  /** What is not taken as it was written. */
  readonly warnings: readonly string[];
}

/** What our own variables say. */
export interface OwnSettings {
  readonly endpoint: string;
  readonly metricsIntervalMs: number;
  readonly name: string;
  readonly version: string;
}

type Otel = Readonly<Record<string, string>>;
type Signal = "TRACES" | "METRICS";

const TIMEOUT_MS = 10_000;
const OF_SIGNALS: readonly string[] = [
  "ENDPOINT",
  "CERTIFICATE",
  "CLIENT_CERTIFICATE",
  "CLIENT_KEY",
  "INSECURE",
  "HEADERS",
  "TIMEOUT",
  "PROTOCOL",
  "COMPRESSION",
].flatMap((name) => ["", "TRACES_", "METRICS_"].map((signal) => `OTEL_EXPORTER_OTLP_${signal}${name}`));
const KNOWN: ReadonlySet<string> = new Set([
  ...OF_SIGNALS,
  "OTEL_SDK_DISABLED",
  "OTEL_TRACES_EXPORTER",
  "OTEL_METRICS_EXPORTER",
  "OTEL_SERVICE_NAME",
  "OTEL_RESOURCE_ATTRIBUTES",
  "OTEL_TRACES_SAMPLER",
  "OTEL_TRACES_SAMPLER_ARG",
  "OTEL_METRIC_EXPORT_INTERVAL",
]);

/**
 * Never throws: what cannot be read is a warning and counts as not set, as the specification wants it.
 * @param otel those that are set to something
 */
export function otlpSettings(otel: Otel, own: OwnSettings): OtlpSettings {
  const reader = new Reader(otel);
  const unknown = Object.keys(otel).filter((name) => !KNOWN.has(name));
  for (const name of unknown.sort()) reader.warnings.push(`${name} is set and nothing here reads it`);
  const isOff = reader.flag("OTEL_SDK_DISABLED") === true;
  return {
    traces: isOff ? undefined : reader.signal("TRACES", own.endpoint),
    metrics: isOff ? undefined : reader.signal("METRICS", own.endpoint),
    metricsIntervalMs: reader.milliseconds("OTEL_METRIC_EXPORT_INTERVAL") ?? own.metricsIntervalMs,
    sampler: reader.sampler(),
    resource: {
      "service.name": own.name,
      "service.version": own.version,
      ...reader.pairs("OTEL_RESOURCE_ATTRIBUTES"),
      ...(otel["OTEL_SERVICE_NAME"] === undefined ? {} : { "service.name": otel["OTEL_SERVICE_NAME"] }),
    },
    problems: reader.problems,
    warnings: reader.warnings,
  };
}

class Reader {
  readonly problems: string[] = [];
  readonly warnings: string[] = [];
  readonly #otel: Otel;

  constructor(otel: Otel) {
    this.#otel = otel;
  }

  signal(signal: Signal, ownEndpoint: string): SignalSettings | undefined {
    const exporter = `OTEL_${signal}_EXPORTER`;
    const wanted = this.#otel[exporter] ?? "otlp";
    if (wanted === "none") return undefined;
    if (wanted !== "otlp") this.#warn(exporter, "otlp or none");
    const name = (field: string) => this.#nameOf(signal, field);
    const read = (field: string) => this.#otel[name(field)];
    const isForeign = !["grpc", undefined].includes(read("PROTOCOL"));
    if (isForeign) this.#warn(name("PROTOCOL"), "grpc: nothing else is spoken here");
    if (!["none", undefined].includes(read("COMPRESSION")))
      this.#warn(name("COMPRESSION"), "none: nothing is compressed here");
    const endpoint = read("ENDPOINT") ?? ownEndpoint;
    try {
      const { target, name: host, isTls, warning } = parseCollectorTarget(endpoint);
      if (warning !== undefined) this.warnings.push(warning);
      const [roots, certificate, key] = [read("CERTIFICATE"), read("CLIENT_CERTIFICATE"), read("CLIENT_KEY")];
      const isInsecure = this.flag(name("INSECURE"));
      // Plain gRPC is what NSM's own variable has always meant; the specification's means TLS.
      const isUsual = (read("ENDPOINT") !== undefined && !target.startsWith("unix:")) || roots !== undefined;
      const isSecure = isTls ?? (isInsecure === undefined ? isUsual : !isInsecure);
      return {
        endpoint,
        target,
        tls: isSecure ? { name: host, roots, certificate, key } : undefined,
        headers: this.pairs(name("HEADERS"), /^[a-z0-9_.-]+$/),
        timeoutMs: this.milliseconds(name("TIMEOUT")) ?? TIMEOUT_MS,
      };
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      const variable = read("ENDPOINT") === undefined ? "NSM_OPEN_TELEMETRY_ENDPOINT" : name("ENDPOINT");
      this.problems.push(
        `No ${signal.toLowerCase()} are sent: ${variable} is ${JSON.stringify(endpoint)}: ${error.message}`,
      );
      return undefined;
    }
  }

  sampler(): Sampler {
    const name = this.#otel["OTEL_TRACES_SAMPLER"];
    if (name === undefined) return standardSampler;
    try {
      return samplerNamed(name, this.#otel["OTEL_TRACES_SAMPLER_ARG"]);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      this.#warn("OTEL_TRACES_SAMPLER", error.message);
      return standardSampler;
    }
  }

  flag(name: string): boolean | undefined {
    const text = this.#otel[name]?.toLowerCase();
    if (text === undefined || text === "true") return text && true;
    if (text !== "false") this.#warn(name, "true or false");
    return text === "false" ? false : undefined;
  }

  milliseconds(name: string): number | undefined {
    const text = this.#otel[name];
    if (text === undefined) return undefined;
    if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
    this.#warn(name, "whole milliseconds, 1 at least");
    return undefined;
  }

  /** `k=v,k2=v2`, values encoded as in URLs; none of it where a part of it cannot be read. */
  pairs(name: string, key = /^[^\s=,]+$/): Readonly<Record<string, string>> {
    const parts = (this.#otel[name] ?? "").split(",").filter((part) => part.trim() !== "");
    try {
      return Object.fromEntries(parts.map((part) => pairOf(part, key)));
    } catch {
      const warning = `${name} is no list like key=value,key2=value2 with values encoded as in URLs: none of it is taken`;
      if (!this.warnings.includes(warning)) this.warnings.push(warning); // not shown: it may hold a secret
      return {};
    }
  }

  #nameOf(signal: Signal, field: string): string {
    const ofSignal = `OTEL_EXPORTER_OTLP_${signal}_${field}`;
    return this.#otel[ofSignal] === undefined ? `OTEL_EXPORTER_OTLP_${field}` : ofSignal;
  }

  #warn(name: string, wanted: string): void {
    const warning = `${name} is ${JSON.stringify(this.#otel[name])} and counts as not set: want ${wanted}`;
    if (!this.warnings.includes(warning)) this.warnings.push(warning);
  }
}

function pairOf(part: string, wanted: RegExp): readonly [string, string] {
  const at = part.indexOf("=");
  const key = part.slice(0, Math.max(at, 0)).trim();
  const value = decodeURIComponent(part.slice(at + 1).trim());
  if (!wanted.test(key) || /[^\x20-\x7e\u0080-\uffff]/.test(value)) throw new SyntaxError("no pair");
  return [key, value];
}
