// W3C Trace Context, https://www.w3.org/TR/trace-context/: traceparent and tracestate as they travel in gRPC's headers.
import type { Random } from "../async/index.ts";

/** Where in which trace we are. Ids are lower-case hex. */
export interface TraceContext {
  /** 32 digits, not all 0. */
  readonly traceId: string;
  /** 16 digits, not all 0. */
  readonly spanId: string;
  /** Whether the trace's origin wants its spans kept. */
  readonly isSampled: boolean;
  /** What other tracers put beside it, handed on as it came. */
  readonly state: string;
}

/** What must be handed on at least (section 3.3.1.5); more is dropped. */
const LONGEST_STATE = 512;

/** What the headers name; undefined if nothing, or nothing sound: then a trace of its own begins. */
export function readTraceContext(headers: ReadonlyMap<string, readonly string[]>): TraceContext | undefined {
  const [traceparent = "", ...more] = headers.get("traceparent") ?? [];
  const found = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/.exec(traceparent);
  const [, version, traceId = "", spanId = "", flags = "", rest] = found ?? [];
  const isWrong = more.length > 0 || version === "ff" || (version === "00" && rest !== undefined);
  if (!found || isWrong || /^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  const state = (headers.get("tracestate") ?? []).join(",");
  const isSound = state.length <= LONGEST_STATE && /^[\x20-\x7e]*$/.test(state);
  return { traceId, spanId, isSampled: (Number.parseInt(flags, 16) & 1) === 1, state: isSound ? state : "" };
}

/** The headers that hand it on. */
export function traceHeaders({ traceId, spanId, isSampled, state }: TraceContext): Readonly<Record<string, string>> {
  const traceparent = `00-${traceId}-${spanId}-${isSampled ? "01" : "00"}`;
  return state === "" ? { traceparent } : { traceparent, tracestate: state };
}

/** The next span of the same trace; of a new one without a parent, which is always kept. */
export function childOf(parent: TraceContext | undefined, random: Random): TraceContext {
  const spanId = randomId(8, random);
  if (parent) return { ...parent, spanId };
  return { traceId: randomId(16, random), spanId, isSampled: true, state: "" };
}

function randomId(bytes: number, random: Random): string {
  const id = random.bytes(bytes).toString("hex");
  return /^0+$/.test(id) ? randomId(bytes, random) : id;
}
