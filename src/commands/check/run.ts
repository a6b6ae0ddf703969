import type { Given, Surroundings } from "../command.ts";
import { type CheckFiles, openCheckFiles } from "./check-files.ts";
import { mechanisms as all, type Mechanism } from "./finding.ts";
import { countOf, judge } from "./judge.ts";
import { readFacts } from "./read-facts.ts";
import { reportJson, reportText } from "./report.ts";

/** Says what on this node would keep the forwarder from working; `files` only in tests. */
export async function check(given: Given, surroundings: Surroundings, files?: CheckFiles): Promise<number> {
  const { out, version, environment } = surroundings;
  const named = given.values("mechanism").map((name) => name.toUpperCase());
  const mechanisms: readonly Mechanism[] = named.length === 0 ? all : all.filter((one) => named.includes(one));
  const facts = await readFacts(surroundings, files ?? openCheckFiles(environment.settings));
  const findings = judge(facts, mechanisms);
  const text = given.has("json")
    ? reportJson(findings, version, mechanisms)
    : reportText(findings, out, { mechanisms, isQuiet: given.has("quiet") });
  out.write(text);
  return mechanisms.every((one) => countOf(findings, "fail", one) === 0) ? 0 : 1;
}
