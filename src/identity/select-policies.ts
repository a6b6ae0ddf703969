import { IdentityError } from "./error.ts";
import { policies } from "./policies.ts";
import type { Policy } from "./policy.ts";

/** Represents the folder of policies in the original's masks; the embedded ones lie under "policies" there. */
const FOLDER = "etc/nsm/opa";

/** What guards the NetworkService server. The original has no variable for it either. */
export const serverPolicyMasks = [`${FOLDER}/common/.*.rego`, `${FOLDER}/server/.*.rego`] as const;

/**
 * The policies that the masks select, in the masks' order and then by name, each once. A mask is an anchored regular
 * expression over the policies' paths, as the original reads it. No mask selects no policy: everything is allowed.
 * @throws {IdentityError} kind "bad-policy-mask" when a mask selects nothing: it would allow everything in silence (W6)
 */
export function selectPolicies(masks: readonly string[]): readonly Policy[] {
  return [...new Set(masks.flatMap(selectByMask))];
}

function selectByMask(mask: string): readonly Policy[] {
  const pattern = compile(mask);
  const found = policies.filter((policy) => pattern.test(policy.name));
  if (found.length > 0) return found;
  const names = policies.map((policy) => policy.name.replace("policies", FOLDER)).join(", ");
  throw new IdentityError({ kind: "bad-policy-mask", mask, problem: `${whyNothing(mask)}. There are: ${names}` });
}

function compile(mask: string): RegExp {
  try {
    return new RegExp(`^${mask.replaceAll(FOLDER, "policies")}$`);
  } catch (error) {
    const problem = `it is no regular expression: ${(error as Error).message}`;
    throw new IdentityError({ kind: "bad-policy-mask", mask, problem }, { cause: error });
  }
}

/** The original takes a mask that selects nothing for "no policy", so each of these deserves its own words. */
function whyNothing(mask: string): string {
  if (mask.startsWith(`/${FOLDER}`)) return `it selects nothing; write it without the leading slash`;
  if (/[^*]\.rego$/.test(mask)) {
    return (
      "it names a Rego file of your own, and no Rego is evaluated here: use the built-in policies, or keep your rule " +
      "in the NSMgr and registry, which evaluate it"
    );
  }
  if (mask.endsWith(".wasm")) return "it names a compiled policy, and those are not evaluated by this version";
  return "it selects nothing, which would allow everything";
}
