import type { NewAddress, NewNeighbour, NewRoute, NewRule } from "../kernel/index.ts";

/** One thing to do to a link in the client's namespace, as plain data. */
export type Change =
  | { readonly kind: "sysctl"; readonly name: string; readonly value: string; readonly mayFail: boolean }
  | { readonly kind: "rename"; readonly name: string }
  | { readonly kind: "mac"; readonly mac: string }
  | { readonly kind: "mtu"; readonly mtu: number }
  | { readonly kind: "up" }
  | { readonly kind: "add-address" | "remove-address"; readonly address: NewAddress }
  | { readonly kind: "add-route" | "remove-route"; readonly route: NewRoute }
  | { readonly kind: "add-rule" | "remove-rule"; readonly rule: NewRule }
  | { readonly kind: "add-neighbour"; readonly neighbour: NewNeighbour }
  | { readonly kind: "remove-neighbour"; readonly neighbour: Pick<NewNeighbour, "ifindex" | "address"> };

/** What is not as desired: what is to be changed, or why nothing can be. */
export type Difference =
  | Change
  | { readonly kind: "not-there"; readonly link: string }
  | { readonly kind: "vf"; readonly setting: string };

/** A change as an operator would write it: "add-route 10.0.0.0/16 via 10.1.0.1 table 254". */
export function changeText(change: Difference): string {
  switch (change.kind) {
    case "sysctl":
      return `sysctl ${change.name}=${change.value}`;
    case "rename":
      return `rename to ${change.name}`;
    case "mac":
      return `mac ${change.mac}`;
    case "mtu":
      return `mtu ${change.mtu}`;
    case "up":
      return "up";
    case "add-address":
    case "remove-address":
      return `${change.kind} ${change.address.address}/${change.address.prefixLength}`;
    case "add-route":
    case "remove-route":
      return `${change.kind} ${routeText(change.route)}`;
    case "add-rule":
    case "remove-rule":
      return `${change.kind} ${ruleText(change.rule)}`;
    case "add-neighbour":
      return `${change.kind} ${change.neighbour.address} at ${change.neighbour.mac}`;
    case "remove-neighbour":
      return `${change.kind} ${change.neighbour.address}`;
    case "not-there":
      return `link ${change.link} is not in the namespace`;
    case "vf":
      return `${change.kind} ${change.setting}`;
  }
}

function routeText(route: NewRoute): string {
  const via = route.gateway === undefined ? "" : ` via ${route.gateway}`;
  const metric = route.metric ? ` metric ${route.metric}` : "";
  return `${route.destination}/${route.prefixLength}${via} table ${route.table ?? 254}${metric}`;
}

function ruleText(rule: NewRule): string {
  const from = rule.from ? `${rule.from.address}/${rule.from.prefixLength}` : "all";
  const proto = rule.ipProtocol === undefined ? "" : ` proto ${rule.ipProtocol}`;
  const sport = rule.sourcePorts ? ` sport ${rule.sourcePorts.first}-${rule.sourcePorts.last}` : "";
  const dport = rule.destinationPorts ? ` dport ${rule.destinationPorts.first}-${rule.destinationPorts.last}` : "";
  return `IPv${rule.family} from ${from}${proto}${sport}${dport} table ${rule.table}`;
}
