// The steps of a Request and of its end, measured.
import type { Clock } from "../../async/index.ts";
import { type Histogram, type Metrics, outcomes, type Tracer, timed } from "../../telemetry/index.ts";
import type { Discovery } from "../endpoint/find-endpoints.ts";
import type { Caller } from "../peers.ts";
import type { ConnectionJournal } from "./journal-entry.ts";

/**
 * `journal`: what is intended or established is safe on disk. `prepare`: the VF is bound, the client's files are here.
 * `find-endpoints`, `endpoint-request`, `endpoint-close`: another peer has answered. `apply`: the client has it as requested.
 * `observe`: what is in force was read. `release`: all is restored to the host.
 */
const stepNames = [
  "journal",
  "prepare",
  "find-endpoints",
  "endpoint-request",
  "endpoint-close",
  "apply",
  "observe",
  "release",
] as const;
type StepName = (typeof stepNames)[number];

/** Where each step passes through. */
export interface Steps {
  run<T>(step: StepName, work: () => Promise<T>): Promise<T>;
}

/** Steps that are not measured. */
export const unwatchedSteps: Steps = { run: (_step, work) => work() };

/** Steps that are measured. */
export function measuredSteps(metrics: Metrics, clock: Clock): Steps {
  const seconds: Histogram<{ step: typeof stepNames; outcome: typeof outcomes }> = metrics.histogram({
    name: "nsm_sriov_step_seconds",
    help: "How long the steps of Requests and of their ends took, waiting for others included",
    labels: { step: stepNames, outcome: outcomes },
  });
  return {
    run: (step, work) => timed(clock, (outcome, took) => seconds.observe({ step, outcome }, took), work),
  };
}

/** The same steps as spans of the call that they belong to. */
export function tracedSteps(steps: Steps, tracer: Tracer): Steps {
  return { run: (step, work) => tracer.step(step, () => steps.run(step, work)) };
}

/** The same parts, with what others do for us passing through. What a mechanism does is measured where it is called. */
export function inSteps<P extends { readonly caller: Caller; readonly journal: ConnectionJournal }>(
  parts: P,
  steps: Steps,
  tracer: Tracer,
): P {
  return {
    ...parts,
    caller: callerIn(parts.caller, steps, tracer),
    journal: {
      put: (entry) => steps.run("journal", () => parts.journal.put(entry)),
      drop: (id) => steps.run("journal", () => parts.journal.drop(id)),
    },
  };
}

/** A search for endpoints as one step, however many questions it takes. */
export function discoveryIn(discovery: Pick<Discovery, "find">, steps: Steps): Pick<Discovery, "find"> {
  return { find: (sought, signal) => steps.run("find-endpoints", () => discovery.find(sought, signal)) };
}

/** Of endpoints: the registry is only listened to. Peers learn which trace a call belongs to. */
function callerIn(caller: Caller, steps: Steps, tracer: Tracer): Caller {
  return {
    call(target, method, request, options) {
      const traced = () =>
        caller.call(target, method, request, { ...options, metadata: { ...options?.metadata, ...tracer.headers() } });
      return steps.run(method.name === "Close" ? "endpoint-close" : "endpoint-request", traced);
    },
    stream: (target, method, request, options) => caller.stream(target, method, request, options),
  };
}
