// Names of metrics and health codes are an interface: what is written about them must be what the code declares.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { parseSource, type Source, sourcePaths, walk } from "../tools/source.ts";

const sources = sourcePaths()
  .filter((path) => path.startsWith("src/") && !path.endsWith(".test.ts") && !path.startsWith("src/gen/"))
  .map((path) => parseSource(path));

interface Property {
  readonly key?: { readonly value?: string };
  readonly value?: string | { readonly type: string; readonly value?: string };
}

/** Texts that stand as the value of this field in any object, which also has the other field. */
function valuesOf(field: string, beside: string, all: readonly Source[] = sources): readonly string[] {
  const found = new Set<string>();
  for (const { tree } of all) {
    walk(tree, (node) => {
      if (node.type !== "ObjectExpression") return;
      const properties = node["properties"] as Property[];
      // `{ help }` is an identifier of its own in swc's tree.
      if (!properties.some(({ key, value }) => key?.value === beside || value === beside)) return;
      const value = properties.find(({ key }) => key?.value === field)?.value;
      if (typeof value === "object" && value.type === "StringLiteral" && value.value) found.add(value.value);
    });
  }
  return [...found].sort();
}

const texts = new Set<string>();
for (const { tree } of sources) {
  walk(tree, (node) => {
    if (node.type === "StringLiteral") texts.add(node["value"] as string);
  });
}
const metricNames = [...texts].filter((text) => /^nsm_sriov_[a-z_]+$/.test(text)).sort();
const codes = valuesOf("code", "severity");

test("the dashboard asks for metrics that exist", () => {
  const dashboard = readFileSync("deploy/grafana/forwarder-sriov.json", "utf8");
  const asked = new Set(
    dashboard.match(/\bnsm_sriov_[a-z_]+/g)?.map((name) => name.replace(/_(bucket|count|sum)$/, "")),
  );
  assert.ok(asked.size >= 12);
  assert.deepEqual(
    [...asked].filter((name) => !metricNames.includes(name)),
    [],
  );
});

test("docs/operate.md tells each metric and each health code, and no others", () => {
  const operate = readFileSync("docs/operate.md", "utf8");
  const rows = (pattern: RegExp) => [...operate.matchAll(pattern)].map(([, name]) => name).sort();
  assert.deepEqual(rows(/^\| `(nsm_sriov_[a-z_]+)` \|/gm), metricNames);
  assert.deepEqual(rows(/^### `([a-z-]+)`$/gm), codes);
});
