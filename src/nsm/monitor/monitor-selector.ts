import type { Connection, MonitorScopeSelector } from "../../gen/connection_pb.ts";

/**
 * True if the subscriber requested this connection: nsm-protocol §2.7. The selector's segments must match a run of the
 * path; an empty name or id matches any. Tokens in a selector are not compared: the stream would answer who guesses right.
 */
export function isSelected(selector: MonitorScopeSelector, connection: Connection): boolean {
  const { networkServices, pathSegments: selected } = selector;
  if (networkServices.length > 0 && !networkServices.includes(connection.networkService)) return false;
  const path = connection.path?.pathSegments ?? [];
  if (selected.length === 0) return true;
  for (let start = 0; start + selected.length <= path.length; start++) {
    const fits = selected.every(({ name, id }, offset) => {
      const segment = path[start + offset];
      return (name === "" || name === segment?.name) && (id === "" || id === segment?.id);
    });
    if (fits) return true;
  }
  return false;
}
