import type { NetworkService, NetworkServiceEndpoint } from "../../gen/registry_pb.ts";

type Labels = Readonly<Record<string, string>>;

/**
 * The original's MatchEndpoint: the endpoints that may serve a client with these labels, in the order of the routes that lead
 * to them: nsm-protocol §2.10. An endpoint that several routes reach comes once.
 */
export function matchEndpoints(
  labels: Labels,
  service: NetworkService,
  endpoints: readonly NetworkServiceEndpoint[],
): readonly NetworkServiceEndpoint[] {
  if (service.matches.length === 0) return endpoints;
  for (const match of service.matches) {
    if (!isSubset(labels, match.sourceSelector, labels)) continue;
    const candidates = new Set<NetworkServiceEndpoint>();
    for (const route of match.routes) {
      for (const endpoint of endpoints) {
        const offered = endpoint.networkServiceLabels[service.name]?.labels ?? {};
        if (isSubset(offered, route.destinationSelector, labels)) candidates.add(endpoint);
      }
    }
    if (candidates.size === 0 && match.fallthrough) continue;
    if (match.metadata && match.routes.length === 0) return endpoints;
    return [...candidates];
  }
  return [];
}

/** True if `whole` has every pair of `part`, whose values may be templates over the client's labels. */
function isSubset(whole: Labels, part: Labels, client: Labels): boolean {
  if (Object.keys(whole).length < Object.keys(part).length) return false;
  return Object.entries(part).every(([key, value]) => {
    const offered = labelOf(whole, key) ?? "";
    return offered === value || offered === renderLabel(value, client);
  });
}

/**
 * A Go text/template over the client's labels, as far as NSM manifests use them: `{{.nodeName}}` and
 * `{{index . "a/b"}}` with any spacing and trim marks. A label that is missing becomes `<no value>`; a template that we
 * cannot read is taken literally, as one is that Go cannot parse.
 */
export function renderLabel(template: string, labels: Labels): string {
  if (!template.includes("{{")) return template;
  let readable = true;
  const text = template
    .replace(/\s*\{\{- /g, "{{ ")
    .replace(/ -\}\}\s*/g, " }}")
    .replace(/\{\{(.*?)\}\}/gs, (_all, action: string) => {
      const field = /^\s*\.([\p{L}_][\p{L}\p{Nd}_]*)\s*$/u.exec(action)?.[1];
      const indexed = /^\s*index\s+\.\s+"([^"\\]*)"\s*$/.exec(action)?.[1];
      const comment = /^\s*\/\*.*\*\/\s*$/s.test(action);
      if (comment) return "";
      // `index` of a missing key gives the map's zero value, a field of a missing key gives Go's `<no value>`.
      if (indexed !== undefined) return labelOf(labels, indexed) ?? "";
      if (field !== undefined) return labelOf(labels, field) ?? "<no value>";
      readable = false;
      return "";
    });
  return readable && !text.includes("{{") ? text : template;
}

function labelOf(labels: Labels, key: string): string | undefined {
  return Object.hasOwn(labels, key) ? labels[key] : undefined;
}
