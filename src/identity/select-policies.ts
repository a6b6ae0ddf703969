import { IdentityError } from "./error.ts";
import { policies } from "./policies.ts";
import type { Policy } from "./policy.ts";

/** Represents the folder of policies in the original's masks; the embedded ones lie under "policies" there. */
const FOLDER = "etc/nsm/opa";

/** What guards the NetworkService server. The original has no variable for it either. */
export const serverPolicyMasks = [`${FOLDER}/common/.*.rego`, `${FOLDER}/server/.*.rego`] as const;

/** What masks select. */
export interface SelectedPolicies {
  /** In the masks' order and then by name, each once. None: everything is allowed. */
  readonly policies: readonly Policy[];
  /** A sentence for each mask that selects nothing, and one where there is no policy at all: the original is silent (W6). */
  readonly warnings: readonly string[];
}

/**
 * The policies that the masks select. A mask is an anchored regular expression over the policies' paths, as the original reads it.
 * @param own policies that are not built in, by the path of their file
 * @throws {IdentityError} kind "bad-policy-mask" for what is no regular expression
 */
export function selectPolicies(masks: readonly string[], own: readonly Policy[] = []): SelectedPolicies {
  const byMask = masks.map((mask) => ({ mask, found: selectByMask(mask, own) }));
  const warnings = byMask.filter(({ found }) => found.length === 0).map(({ mask }) => unmatched(mask));
  const selected = [...new Set(byMask.flatMap(({ found }) => found))];
  if (selected.length === 0) warnings.push("no policy is selected: every answer is allowed");
  return { policies: selected, warnings };
}

/** Whether a mask can name nothing but what is built in. */
export function isBuiltInMask(mask: string): boolean {
  return mask.startsWith(`${FOLDER}/`) || mask.startsWith("policies/");
}

/** The mask over paths of files. @throws {IdentityError} kind "bad-policy-mask" */
export function compileMask(mask: string): RegExp {
  try {
    return new RegExp(`^${mask}$`);
  } catch (error) {
    const problem = `it is no regular expression: ${(error as Error).message}`;
    throw new IdentityError({ kind: "bad-policy-mask", mask, problem }, { cause: error });
  }
}

function selectByMask(mask: string, own: readonly Policy[]): readonly Policy[] {
  const pattern = compileMask(mask.replaceAll(FOLDER, "policies"));
  const files = compileMask(mask);
  const ofFile = own.filter(({ name }) => name === mask || files.test(name));
  return [...ofFile, ...policies.filter(({ name }) => pattern.test(name))];
}

function unmatched(mask: string): string {
  const names = policies.map((policy) => policy.name.replace("policies", FOLDER)).join(", ");
  return `the policy mask "${mask}" selects nothing${hint(mask)}; built in are ${names}`;
}

function hint(mask: string): string {
  if (mask.startsWith(`/${FOLDER}`)) return ": write it without the leading slash";
  if (/[.](tar|gz|tgz)$/.test(mask)) return ": a bundle is not read; take policy.wasm out of it";
  if (/[^*][.](rego|wasm)$/.test(mask)) return ": there is no such file";
  return "";
}
