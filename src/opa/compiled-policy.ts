import { createContext, Script } from "node:vm";
import * as library from "@open-policy-agent/opa-wasm";
import type { Policy, PolicyInput } from "../identity/index.ts";
import { readSmallBytes } from "../kernel/index.ts";
import { type Builtins, builtinsAt, ofLibrary } from "./builtins.ts";
import { inputDocument } from "./policy-input.ts";

/** A compiled policy cannot be run here. */
export class CompiledPolicyError extends Error {
  override readonly name = "CompiledPolicyError";
}

/** OPA's own part has 150 KiB. */
const POLICY_MEBIBYTES = 4;
/** 64 KiB each. The smallest container for which we are made has 96 MiB. */
const MOST_PAGES = 256;
/** A policy has this process to itself while it runs. NSM's own take some milliseconds. */
const LIMIT_MS = 500;

/** The library's own types want those of a browser. */
interface LoadedPolicy {
  readonly entrypoints: Readonly<Record<string, number>>;
  readonly wasmInstance: { readonly exports: Readonly<Record<string, (address?: number) => number>> };
  readonly mem: { readonly buffer: ArrayBuffer };
  evaluate(input: unknown, entry: string): readonly { readonly result?: unknown }[];
}
interface Library {
  loadPolicySync(bytes: Buffer, memory: { initial: number; maximum: number }, builtins: Builtins): LoadedPolicy;
}
const { loadPolicySync } = (library as unknown as { readonly default: Library }).default;

interface Compiled {
  readonly bytes: Buffer;
  /** What the policy says yes or no in: "nsm/valid". */
  readonly entry: string;
  readonly limitMs: number;
}

/**
 * A policy that `opa build -t wasm` has made, from its file. What it does not say yes to, in time and within its memory, is refused.
 * @throws {CompiledPolicyError} for what is no such policy, or asks its host for what is not here
 * @throws {KernelError} when the file cannot be read
 */
export async function loadCompiledPolicy(
  path: string,
  {
    builtins = builtinsAt,
    limitMs = LIMIT_MS,
  }: { readonly builtins?: typeof builtinsAt; readonly limitMs?: number } = {},
): Promise<Policy> {
  const bytes = await readSmallBytes(path, POLICY_MEBIBYTES);
  const compiled = { bytes, entry: checked(bytes, builtins(0), limitMs), limitMs };
  return { name: path, findFault: (input) => judge(compiled, input, builtins(input.nowMs)) };
}

/** Each time a new instance: what one evaluation leaves behind, or was ended in, is gone with its memory. */
function open(bytes: Buffer, builtins: Builtins): LoadedPolicy {
  return loadPolicySync(bytes, { initial: 5, maximum: MOST_PAGES }, builtins);
}

/** The entry that is evaluated. @throws {CompiledPolicyError} */
function checked(bytes: Buffer, builtins: Builtins, limitMs: number): string {
  let policy: LoadedPolicy;
  let wanted: readonly string[];
  try {
    policy = bounded(() => open(bytes, builtins), limitMs);
    wanted = builtinsOf(policy);
  } catch (error) {
    throw new CompiledPolicyError(
      `it is no policy that opa build made (${describe(error, limitMs)}): want policy.wasm of its bundle`,
    );
  }
  const known = [...ofLibrary, ...Object.keys(builtins)].sort();
  const missing = wanted.filter((name) => !known.includes(name));
  if (missing.length > 0) {
    throw new CompiledPolicyError(
      `it calls ${missing.join(", ")}, which is not here; besides OPA's own there are ${known.join(", ")}`,
    );
  }
  const entries = Object.keys(policy.entrypoints);
  const [entry, ...more] = entries.filter((name) => /(^|\/)valid$/.test(name));
  if (entry === undefined || more.length > 0) {
    throw new CompiledPolicyError(
      `its entry points are ${entries.join(", ")}: want one that is called valid (opa build -e nsm/valid)`,
    );
  }
  return entry;
}

function judge(
  { bytes, entry, limitMs }: Compiled,
  input: PolicyInput,
  builtins: Builtins,
): ReturnType<Policy["findFault"]> {
  let answers: ReturnType<LoadedPolicy["evaluate"]>;
  try {
    answers = bounded(() => open(bytes, builtins).evaluate(inputDocument(input), entry), limitMs);
  } catch (error) {
    return { kind: "own-failure", problem: describe(error, limitMs) };
  }
  const result = answers[0]?.result;
  if (result === true) return undefined;
  if (result === false) return { kind: "own-refusal", entry };
  return { kind: "own-failure", problem: `${entry} is ${result === undefined ? "undefined" : "no boolean"}` };
}

/** Ends what takes too long, also within WebAssembly. @throws what the work throws */
function bounded<T>(work: () => T, limitMs: number): T {
  return new Script("work()").runInContext(createContext({ work }), { timeout: limitMs }) as T;
}

/** Names of what the policy asks its host for: the ABI of https://www.openpolicyagent.org/docs/wasm, which the library keeps to itself. */
function builtinsOf({ wasmInstance, mem }: LoadedPolicy): readonly string[] {
  const { opa_json_dump, builtins } = wasmInstance.exports;
  const at = opa_json_dump?.(builtins?.()) ?? 0;
  const bytes = Buffer.from(mem.buffer);
  return Object.keys(JSON.parse(bytes.toString("utf8", at, bytes.indexOf(0, at))));
}

/** The library throws texts and bare objects as well. */
function describe(error: unknown, limitMs: number): string {
  if (typeof error === "string") return error;
  const { message, code } = (error ?? {}) as { readonly message?: unknown; readonly code?: unknown };
  if (code === "ERR_SCRIPT_EXECUTION_TIMEOUT") return `it took longer than ${limitMs} ms`;
  return typeof message === "string" ? message : "it failed";
}
