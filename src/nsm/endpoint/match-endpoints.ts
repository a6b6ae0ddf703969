import type { Match, NetworkService } from "../../gen/registry_pb.ts";

type Labels = Readonly<Record<string, string>>;

/**
 * The original's MatchEndpoint: the endpoints that may serve a client with these labels, in the order of the routes that lead
 * to them: nsm-protocol §2.10. An endpoint that several routes reach comes once.
 */
export function matchEndpoints<E extends { readonly labels: Labels }>(
  labels: Labels,
  service: NetworkService,
  endpoints: readonly E[],
): readonly E[] {
  if (service.matches.length === 0) return endpoints;
  const client = labelled(labels, labels);
  const offered = endpoints.map((endpoint) => labelled(endpoint, endpoint.labels));
  for (const match of service.matches) {
    if (!fits(client, selectorOf(match.sourceSelector, labels))) continue;
    const candidates = reached(match, offered, labels);
    if (candidates.length === 0 && match.fallthrough) continue;
    if (match.metadata && match.routes.length === 0) return endpoints;
    return candidates;
  }
  return [];
}

/** In the order of the routes; what one has reached is not compared with the next. */
function reached<E>({ routes }: Match, offered: readonly Labelled<E>[], client: Labels): readonly E[] {
  const candidates: E[] = [];
  let left = offered;
  for (const { destinationSelector } of routes) {
    if (left.length === 0) break;
    const selector = selectorOf(destinationSelector, client);
    const byFit = Map.groupBy(left, (one) => fits(one, selector));
    candidates.push(...(byFit.get(true) ?? []).map(({ of }) => of));
    left = byFit.get(false) ?? [];
  }
  return candidates;
}

interface Labelled<T> {
  readonly of: T;
  readonly labels: Labels;
  readonly count: number;
}

function labelled<T>(of: T, labels: Labels): Labelled<T> {
  return { of, labels, count: Object.keys(labels).length };
}

/** Of each label the value, and what that is as a template. */
type Selector = readonly (readonly [key: string, value: string, rendered: string])[];

/** Once for all endpoints: any peer can register a service, with as long templates as a message takes. */
function selectorOf(selector: Labels, client: Labels): Selector {
  return Object.entries(selector).map(([key, value]) => [key, value, renderLabel(value, client)]);
}

/** True if it has every pair of the selector. */
function fits({ labels, count }: Labelled<unknown>, selector: Selector): boolean {
  if (count < selector.length) return false;
  return selector.every(([key, value, rendered]) => {
    const offered = labelOf(labels, key) ?? "";
    return offered === value || offered === rendered;
  });
}

/**
 * A Go text/template over the client's labels, as far as NSM manifests use them: `{{.nodeName}}` and
 * `{{index . "a/b"}}` with any spacing and trim marks. A label that is missing becomes `<no value>`; a template that we
 * cannot read is taken literally, as one is that Go cannot parse.
 */
export function renderLabel(template: string, labels: Labels): string {
  let text = "";
  let at = 0;
  // In one pass: any peer can register a service.
  for (let open = template.indexOf("{{"); open >= 0; open = template.indexOf("{{", at)) {
    const close = template.indexOf("}}", open + 2);
    const action = close < 0 ? "" : template.slice(open + 2, close);
    const value = renderAction(action.replace(/^- /, "").replace(/ -$/, "").trim(), labels);
    if (value === undefined) return template;
    const before = template.slice(at, open);
    text += (action.startsWith("- ") ? before.trimEnd() : before) + value;
    at = close + 2;
    if (action.endsWith(" -")) while (/\s/.test(template[at] ?? "")) at += 1;
  }
  text += template.slice(at);
  return text.includes("{{") ? template : text;
}

/** Undefined for what we cannot read. */
function renderAction(action: string, labels: Labels): string | undefined {
  if (/^\/\*.*\*\/$/s.test(action)) return "";
  // `index` of a missing key gives the map's zero value, a field of a missing key gives Go's `<no value>`.
  const indexed = /^index\s+\.\s+"([^"\\]*)"$/.exec(action)?.[1];
  if (indexed !== undefined) return labelOf(labels, indexed) ?? "";
  const field = /^\.([\p{L}_][\p{L}\p{Nd}_]*)$/u.exec(action)?.[1];
  return field === undefined ? undefined : (labelOf(labels, field) ?? "<no value>");
}

function labelOf(labels: Labels, key: string): string | undefined {
  return Object.hasOwn(labels, key) ? labels[key] : undefined;
}
