import { dirname } from "node:path";
import {
  compileMask,
  IdentityError,
  isBuiltInMask,
  type Policy,
  type SelectedPolicies,
  selectPolicies,
} from "../identity/index.ts";
import { filesBelow, KernelError, readSmallFile } from "../kernel/index.ts";

/** Entries of the folder that a mask names: it is one of policies. */
const MOST_FILES = 10_000;
const REGO_MEBIBYTES = 1;

/**
 * The policies of NSM_REGISTRY_CLIENT_POLICIES. What runs compiled ones is loaded where a mask names one.
 * @throws {IdentityError} kind "bad-policy-mask", for a compiled policy that cannot be run and for one that is not compiled too
 */
export async function registryPolicies(masks: readonly string[]): Promise<SelectedPolicies> {
  const own = new Map<string, Policy>();
  for (const mask of masks.filter((one) => !isBuiltInMask(one))) {
    for (const path of await filesOf(mask)) {
      if (path.endsWith(".rego")) throw await notCompiled(mask, path);
      if (path.endsWith(".wasm") && !own.has(path)) own.set(path, await load(mask, path));
    }
  }
  return selectPolicies(masks, [...own.values()]);
}

/** As the original looks: the mask is the path of a file, or a pattern for what is in its folder and below. */
async function filesOf(mask: string): Promise<readonly string[]> {
  // The folder of a name alone may be any, and as large as that of the root.
  if (!/[*+?()[\]{}|^$\\]/.test(mask)) return (await isFile(mask)) ? [mask] : [];
  const pattern = compileMask(mask);
  try {
    const files = await filesBelow(dirname(mask), MOST_FILES);
    return files.includes(mask) ? [mask] : files.filter((path) => pattern.test(path));
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return []; // a warning comes of it
    throw new IdentityError({ kind: "bad-policy-mask", mask, problem: error.message }, { cause: error });
  }
}

async function isFile(path: string): Promise<boolean> {
  return await readSmallFile(path, 1).then(
    () => true,
    (error: unknown) => error instanceof KernelError && error.code !== "ENOENT" && error.code !== "ENOTDIR", // it says why when it is loaded
  );
}

async function load(mask: string, path: string): Promise<Policy> {
  const { CompiledPolicyError, loadCompiledPolicy } = await import("./compiled-policy.ts");
  try {
    return await loadCompiledPolicy(path);
  } catch (error) {
    if (!(error instanceof CompiledPolicyError || error instanceof KernelError)) throw error;
    throw new IdentityError({ kind: "bad-policy-mask", mask, problem: `${path}: ${error.message}` }, { cause: error });
  }
}

async function notCompiled(mask: string, path: string): Promise<IdentityError> {
  const source = await readSmallFile(path, REGO_MEBIBYTES).catch(() => "");
  const entry = (/^\s*package\s+([\w.]+)/m.exec(source)?.[1] ?? "nsm").replaceAll(".", "/");
  const problem =
    `it selects ${path}, and Rego is run compiled here: opa build -t wasm -e ${entry}/valid ${path} && tar -xzf bundle.tar.gz /policy.wasm ` +
    "(with --v0-compatible where it is written for OPA before 1.0); then name the .wasm";
  return new IdentityError({ kind: "bad-policy-mask", mask, problem });
}
