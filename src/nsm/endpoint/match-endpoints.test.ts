import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type MatchSchema, NetworkServiceSchema } from "../../gen/registry_pb.ts";
import { matchEndpoints, renderLabel } from "./match-endpoints.ts";

const endpoints = [
  endpoint("firewall", { app: "firewall" }),
  endpoint("gateway", { app: "gateway", node: "n1" }),
  endpoint("plain", {}),
  endpoint("literal", { node: "{{.nodeName}} of all" }),
];

const rows: readonly {
  readonly says: string;
  readonly labels: Record<string, string>;
  readonly matches: MessageInitShape<typeof MatchSchema>[];
  readonly names: readonly string[];
}[] = [
  { says: "offers all without matches", labels: {}, matches: [], names: ["firewall", "gateway", "plain", "literal"] },
  {
    says: "takes the first match whose selector fits",
    labels: { app: "firewall" },
    matches: [
      { sourceSelector: { app: "nsc" }, routes: [{ destinationSelector: { app: "firewall" } }] },
      { sourceSelector: { app: "firewall" }, routes: [{ destinationSelector: { app: "gateway" } }] },
    ],
    names: ["gateway"],
  },
  {
    says: "offers an endpoint of two routes once, in the order of the routes",
    labels: {},
    matches: [{ routes: [{ destinationSelector: { app: "gateway" } }, { destinationSelector: {} }] }],
    names: ["gateway", "firewall", "plain", "literal"],
  },
  {
    says: "falls through a match without candidates only where it says so",
    labels: {},
    matches: [
      { fallthrough: true, routes: [{ destinationSelector: { app: "none" } }] },
      { routes: [{ destinationSelector: { app: "firewall" } }] },
    ],
    names: ["firewall"],
  },
  {
    says: "stops at a match without candidates",
    labels: {},
    matches: [
      { routes: [{ destinationSelector: { app: "none" } }] },
      { routes: [{ destinationSelector: { app: "firewall" } }] },
    ],
    names: [],
  },
  {
    says: "offers all to a match with metadata and no routes",
    labels: {},
    matches: [{ metadata: { labels: { p2p: "true" } } }],
    names: ["firewall", "gateway", "plain", "literal"],
  },
  {
    says: "offers what the routes lead to where a match has metadata and routes",
    labels: {},
    matches: [{ metadata: { labels: { p2p: "true" } }, routes: [{ destinationSelector: { app: "firewall" } }] }],
    names: ["firewall"],
  },
  { says: "offers none to a match without routes and metadata", labels: {}, matches: [{}], names: [] },
  {
    says: "fills templates of a source with the client's labels",
    labels: { nodeName: "n1" },
    matches: [
      { sourceSelector: { nodeName: "{{.nodeName}}" }, routes: [{ destinationSelector: { app: "firewall" } }] },
    ],
    names: ["firewall"],
  },
  {
    says: "takes a label that is missing for an empty one, but not where there are fewer labels than asked for",
    labels: {},
    matches: [{ routes: [{ destinationSelector: { zone: "" } }] }],
    names: ["firewall", "gateway", "literal"],
  },
  {
    says: "takes a template as it is where an endpoint has it so",
    labels: { nodeName: "n1" },
    matches: [{ routes: [{ destinationSelector: { node: "{{.nodeName}} of all" } }] }],
    names: ["literal"],
  },
  {
    says: "offers none when no match applies",
    labels: {},
    matches: [{ sourceSelector: { app: "x" }, routes: [{}] }],
    names: [],
  },
  {
    says: "fills templates of a destination with the client's labels",
    labels: { nodeName: "n1" },
    matches: [{ routes: [{ destinationSelector: { node: "{{.nodeName}}" } }] }],
    names: ["gateway"],
  },
  {
    says: "does not match a template whose label is missing",
    labels: {},
    matches: [{ routes: [{ destinationSelector: { node: "{{ .nodeName }}" } }] }],
    names: [],
  },
];

for (const { says, labels, matches, names } of rows) {
  test(`matchEndpoints() ${says}`, () => {
    const service = create(NetworkServiceSchema, { name: "ns1", matches });
    assert.deepEqual(
      matchEndpoints(labels, service, endpoints).map(({ name }) => name),
      names,
    );
  });
}

test("matchEndpoints() takes time that grows with the templates and with the endpoints, and not with their product", () => {
  const many = Array.from({ length: 1024 }, (_, index) => endpoint(`e${index}`, { a: `${index}` }));
  const matches = [{ routes: [{ destinationSelector: { a: "{{.a}}".repeat(32 * 1024) } }] }];
  const startedAt = process.cpuUsage();
  assert.deepEqual(matchEndpoints({ a: "1" }, create(NetworkServiceSchema, { matches }), many), []);
  const { user } = process.cpuUsage(startedAt);
  assert.ok(user / 1000 < 2_000, `${user / 1000} ms`);
});

const templates: readonly (readonly [template: string, text: string])[] = [
  ["plain", "plain"],
  ["{{.a}}-{{ .b }}", "1-<no value>"],
  ["x {{- .a -}} y", "x1y"],
  ['{{index . "k/8"}}{{index . "none"}}', "8"],
  ["{{/* nothing */}}z", "z"],
  ["{{ if .a }}q{{ end }}", "{{ if .a }}q{{ end }}"],
  ["{{.a", "{{.a"],
  ["{{.a}} {{.b", "{{.a}} {{.b"],
  ["{{ {{.a}}", "{{ {{.a}}"],
  ["a  {{- .a}}  {{.a -}}  b", "a1  1b"],
  ["{{.a}}}}", "1}}"],
  ["{{.toString}}{{.__proto__}}", "<no value><no value>"],
];
for (const [template, text] of templates) {
  test(`renderLabel() makes ${JSON.stringify(text)} of ${JSON.stringify(template)}`, () => {
    assert.equal(renderLabel(template, { a: "1", "k/8": "8" }), text);
  });
}

test("renderLabel() takes time that grows with the template, and not with its square", () => {
  const [step, most] = [64 * 1024, 1000];
  for (const unit of [" ", "{{", "{{- ", "{{.a}}", "{{/*", "*/ "]) {
    const template = `${unit.repeat(step)}}}`;
    const startedAt = process.cpuUsage();
    renderLabel(template, { a: "1" });
    const { user } = process.cpuUsage(startedAt);
    assert.ok(user / 1000 < most, `${JSON.stringify(unit)}: ${user / 1000} ms`);
  }
});

function endpoint(name: string, labels: Record<string, string>) {
  return { name, labels };
}
