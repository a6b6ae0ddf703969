import { AsyncLocalStorage } from "node:async_hooks";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Clock, type Random, systemRandom } from "../async/index.ts";
import { Span_SpanKind, type SpanSchema, Status_StatusCode } from "../gen/otlp_trace_pb.ts";
import type { SpanFacts, Tracer } from "../telemetry/index.ts";
import { attributesOf } from "./attributes.ts";
import { type Sampler, standardSampler } from "./sampler.ts";
import { childOf, readTraceContext, type TraceContext, traceHeaders } from "./trace-context.ts";

/** A span that has ended, as it is sent. */
export type FinishedSpan = MessageInitShape<typeof SpanSchema>;

interface Begun {
  readonly name: string;
  readonly kind: Span_SpanKind;
  readonly facts: SpanFacts;
  readonly parent: TraceContext | undefined;
}

interface TracerTools {
  readonly random?: Random;
  readonly sampler?: Sampler;
}

/** A tracer whose spans go to `ended`; those of traces that are not kept are passed on and not exported. */
export function spanTracer(clock: Clock, ended: (span: FinishedSpan) => void, tools: TracerTools = {}): Tracer {
  const { random = systemRandom, sampler = standardSampler } = tools;
  const underWay = new AsyncLocalStorage<TraceContext>();
  const run = async <T>(begun: Begun, work: () => Promise<T>): Promise<T> => {
    const child = childOf(begun.parent, random);
    const isOurs = begun.kind === Span_SpanKind.INTERNAL; // its call was decided on
    const context = isOurs ? child : { ...child, isSampled: sampler(child.traceId, begun.parent) };
    // Two clocks: one that other machines read for the start, one that never jumps for how long it took.
    const [startedAt, startedMs] = [clock.now(), clock.monotonicMs()];
    const end = (error?: unknown) => {
      if (!context.isSampled) return;
      ended(finished(begun, context, { startedAt, tookMs: clock.monotonicMs() - startedMs, error }));
    };
    try {
      const result = await underWay.run(context, work);
      end();
      return result;
    } catch (error) {
      end(error ?? new Error("failed"));
      throw error;
    }
  };
  return {
    serve: (name, headers, facts, work) =>
      run({ name, kind: Span_SpanKind.SERVER, facts, parent: readTraceContext(headers) }, work),
    step(name, work) {
      const parent = underWay.getStore();
      return parent ? run({ name, kind: Span_SpanKind.INTERNAL, facts: {}, parent }, work) : work();
    },
    headers() {
      const context = underWay.getStore();
      return context ? traceHeaders(context) : {};
    },
  };
}

function finished(
  { name, kind, facts, parent }: Begun,
  context: TraceContext,
  { startedAt, tookMs, error }: { readonly startedAt: number; readonly tookMs: number; readonly error: unknown },
): FinishedSpan {
  const startNs = BigInt(Math.round(startedAt * 1000)) * 1000n;
  return {
    traceId: Buffer.from(context.traceId, "hex"),
    spanId: Buffer.from(context.spanId, "hex"),
    traceState: context.state,
    ...(parent ? { parentSpanId: Buffer.from(parent.spanId, "hex") } : {}),
    flags: context.isSampled ? 1 : 0,
    name,
    kind,
    startTimeUnixNano: startNs,
    endTimeUnixNano: startNs + BigInt(Math.max(0, Math.round(tookMs * 1e6))),
    attributes: attributesOf(facts),
    ...(error === undefined
      ? {}
      : {
          status: { code: Status_StatusCode.ERROR, message: error instanceof Error ? error.message.slice(0, 500) : "" },
        }),
  };
}
