// Names of metrics and health codes are an interface: what is written about them must be what the code declares.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { effectOf, vfConditionCodes } from "../src/inventory/index.ts";
import { healthConditions } from "../src/telemetry/index.ts";
import { type Node, parseSource, sourcePaths, walk } from "../tools/source.ts";

const sources = sourcePaths()
  .filter((path) => path.startsWith("src/") && !path.endsWith(".test.ts") && !path.startsWith("src/gen/"))
  .map((path) => parseSource(path));

const texts = new Set<string>();
for (const { tree } of sources) {
  walk(tree, (node) => {
    if (node.type === "StringLiteral") texts.add(node["value"] as string);
  });
}
const metricNames = [...texts].filter((text) => /^nsm_sriov_[a-z_]+$/.test(text)).sort();

interface Literal {
  readonly type: string;
  readonly value: string;
}

function literalsOf(node: Node): Readonly<Record<string, string | undefined>> {
  const properties = node["properties"] as readonly { readonly key?: Literal; readonly value?: Literal }[];
  const texts = properties.map(({ key, value }) => [
    key?.value,
    value?.type === "StringLiteral" ? value.value : undefined,
  ]);
  return Object.fromEntries(texts);
}

/** What each metric says of itself at /metrics. */
function helps(): ReadonlyMap<string | undefined, string | undefined> {
  const found = new Map<string, string | undefined>();
  for (const { tree } of sources) {
    walk(tree, (node) => {
      if (node.type !== "ObjectExpression") return;
      const { name, help } = literalsOf(node);
      if (name?.startsWith("nsm_sriov_")) found.set(name, help);
    });
  }
  return new Map([...found].sort());
}

/** Codes of the health conditions that the source raises. */
function raisedCodes(): ReadonlySet<string | undefined> {
  const codes = new Set<string | undefined>();
  for (const { tree } of sources) {
    walk(tree, (node) => {
      const callee = node["callee"] as { readonly property?: { readonly value?: string } } | undefined;
      if (node.type !== "CallExpression" || callee?.property?.value !== "condition") return;
      const [code] = node["arguments"] as readonly { readonly expression: Literal }[];
      codes.add(code?.expression.value);
    });
  }
  return codes;
}

test("the dashboard asks for metrics that exist", () => {
  const dashboard = readFileSync("deploy/grafana/forwarder-sriov.json", "utf8");
  const queried = new Set(
    dashboard.match(/\bnsm_sriov_[a-z_]+/g)?.map((name) => name.replace(/_(bucket|count|sum)$/, "")),
  );
  assert.ok(queried.size >= 12);
  assert.deepEqual(
    [...queried].filter((name) => !metricNames.includes(name)),
    [],
  );
});

test("docs/operate.md has each condition of VFs with its effect, in the order in which they are shown", () => {
  const rows = readFileSync("docs/operate.md", "utf8").matchAll(
    /^\| `([a-z-]+)` \| (quarantine|reclaim|unhealthy|withhold|inform) \|/gm,
  );
  const written = [...rows].map(([, code, effect]) => `${code} ${effect}`);
  assert.deepEqual(
    written,
    vfConditionCodes.map((code) => `${code} ${effectOf({ code })}`),
  );
});

test("docs/operate.md has each metric and each health code, with its severity, and no others", () => {
  const operate = readFileSync("docs/operate.md", "utf8");
  const rows = (pattern: RegExp) => [...operate.matchAll(pattern)].map(([, name]) => name).sort();
  assert.deepEqual(rows(/^\| `(nsm_sriov_[a-z_]+)` \|/gm), metricNames);
  const rowTexts = [...operate.matchAll(/^\| `(nsm_sriov_[a-z_]+)` \|[^|]*\| (.*) \|$/gm)];
  assert.deepEqual(new Map(rowTexts.map(([, name, help]) => [name, help])), helps());
  assert.deepEqual([...raisedCodes()].sort(), Object.keys(healthConditions).sort());
  const reported = [...operate.matchAll(/^### `([a-z-]+)`\n(Blocking|Warning)[.,]/gm)];
  assert.deepEqual(
    reported.map(([, code, severity]) => `${code} ${severity?.toLowerCase()}`).sort(),
    Object.entries(healthConditions)
      .map(([code, { severity }]) => `${code} ${severity}`)
      .sort(),
  );
});
