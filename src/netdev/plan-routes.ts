import { type NewRule, type Route, RT_TABLE_MAIN, type Rule } from "../kernel/index.ts";
import type { Change } from "./change.ts";
import { type DesiredRoute, type DesiredRule, type RuleSelector, routeText, ruleSelector } from "./desired.ts";
import { NetdevError } from "./error.ts";
import { OUR_PROTOCOL, type Owned, ownsRoute, ownsRule, ownTables } from "./owned.ts";

/** What the kernel gives an IPv6 route that names no metric (IP6_RT_PRIO_USER). */
const IPV6_METRIC = 1024;
const RT_SCOPE_LINK = 253;
/** So many tables are searched for a free one. */
export const TABLE_LIMIT = 4096;
/** default, main and local. */
const RESERVED_TABLES = [253, 254, 255];

export interface PlannedEntries {
  readonly add: Change[];
  readonly remove: Change[];
}

/** Our routes in the main table. */
export function planMainRoutes(
  ifindex: number,
  actual: readonly Route[],
  desired: readonly DesiredRoute[],
): PlannedEntries {
  return planTable({ ifindex, actual, desired, table: RT_TABLE_MAIN });
}

interface RulesInput {
  readonly ifindex: number;
  readonly routes: readonly Route[];
  readonly rules: readonly Rule[];
  /** Tables that are in use: one of ours that is empty may be had again. */
  readonly taken: ReadonlySet<number>;
  readonly desired: readonly DesiredRule[];
  readonly owned: Owned;
}

/** Policy rules, each with a table of its own. */
export function planRules(input: RulesInput): PlannedEntries {
  const { ifindex, routes: actual, rules, owned } = input;
  const tables = ownTables(ifindex, actual, owned);
  const owns = new Set(tables);
  const ours = rules.filter((rule) => ownsRule(owns, rule));
  const plan: PlannedEntries = { add: [], remove: [] };
  const kept = new Map<number, Rule>();
  const taken = new Set([...RESERVED_TABLES, ...input.taken]);
  // The kernel puts each new rule before the others: added from the last to the first, they run in the requested order.
  for (const rule of input.desired.toReversed()) {
    const selector = ruleSelector(rule);
    const there = ours.find((own) => ruleSelector(own) === selector && !kept.has(own.table));
    const table = there?.table ?? freeTable(taken);
    taken.add(table);
    if (there) kept.set(table, there);
    const routes = planTable({ ifindex, actual, desired: rule.routes, table });
    plan.add.push(...routes.add);
    // Its table is filled before a packet can be sent there.
    if (!there) plan.add.push({ kind: "add-rule", rule: { ...selectorOf(rule), table, protocol: OUR_PROTOCOL } });
    plan.remove.push(...routes.remove);
  }
  for (const rule of ours) {
    if (kept.get(rule.table) === rule) continue;
    const { table, priority } = rule;
    plan.remove.push({ kind: "remove-rule", rule: { ...selectorOf(rule), table, priority, protocol: OUR_PROTOCOL } });
  }
  for (const table of tables.filter((own) => !kept.has(own))) {
    plan.remove.push(...planTable({ ifindex, actual, desired: [], table }).remove);
  }
  return plan;
}

function selectorOf(rule: RuleSelector): Omit<NewRule, "table"> {
  const { family, from, ipProtocol, sourcePorts, destinationPorts } = rule;
  const source = from && { address: from.address, prefixLength: from.prefixLength };
  return { family, from: source, ipProtocol, sourcePorts, destinationPorts };
}

function freeTable(taken: ReadonlySet<number>): number {
  for (let table = 1; table <= TABLE_LIMIT; table++) {
    if (!taken.has(table)) return table;
  }
  throw new NetdevError({ kind: "no-free-table", limit: TABLE_LIMIT });
}

interface TableInput {
  readonly ifindex: number;
  readonly actual: readonly Route[];
  readonly desired: readonly DesiredRoute[];
  readonly table: number;
}

function planTable({ ifindex, actual, desired, table }: TableInput): PlannedEntries {
  const plan: PlannedEntries = { add: [], remove: [] };
  const inTable = actual.filter((route) => route.table === table);
  const ours = inTable.filter((route) => ownsRoute(ifindex, route));
  const present = new Set(ours.map((route) => routeText(asDesired(route))));
  const given: Route[] = [...inTable];
  for (const route of desired) {
    if (present.has(routeText(route))) continue;
    const added = newRoute(ifindex, route, given);
    given.push(added);
    plan.add.push({ kind: "add-route", route: { ...newRouteOf(added), prepend: route.destination.family === 4 } });
  }
  const kept = new Set(desired.map(routeText));
  for (const route of ours) {
    if (!kept.has(routeText(asDesired(route)))) plan.remove.push({ kind: "remove-route", route: newRouteOf(route) });
  }
  return plan;

  function newRoute(oif: number, route: DesiredRoute, others: readonly Route[]): Route {
    const { family, address, prefixLength } = route.destination;
    return {
      family,
      destination: address,
      prefixLength,
      gateway: route.gateway,
      ifindex: oif,
      table,
      protocol: OUR_PROTOCOL,
      scope: family === 4 && route.gateway === undefined ? RT_SCOPE_LINK : 0,
      type: 1,
      metric: family === 4 ? 0 : ipv6Metric(oif, route, others),
      onlink: route.gateway !== undefined,
    };
  }
}

/**
 * A route to the same place that is not ours stays, and ours must come before it. IPv4 can put one of the same metric in
 * front; IPv6 would spread packets over both, so ours gets a lower metric there.
 */
function ipv6Metric(ifindex: number, route: DesiredRoute, others: readonly Route[]): number {
  const { family, address, prefixLength } = route.destination;
  const same = others.filter(
    (other) => other.family === family && other.destination === address && other.prefixLength === prefixLength,
  );
  const foreign = same.filter((other) => !ownsRoute(ifindex, other)).map((other) => other.metric);
  const ours = new Set(same.filter((other) => ownsRoute(ifindex, other)).map((other) => other.metric));
  let metric = Math.min(IPV6_METRIC + 1, ...foreign) - 1;
  while (ours.has(metric)) metric--;
  return Math.max(1, metric);
}

function asDesired(route: Route): DesiredRoute {
  const { family, destination, prefixLength, gateway } = route;
  return { destination: { family, address: destination, prefixLength }, gateway };
}

function newRouteOf(route: Route) {
  const { family, destination, prefixLength, gateway, ifindex, table, protocol, scope, metric, onlink } = route;
  return { family, destination, prefixLength, gateway, ifindex, table, protocol, scope, metric, onlink };
}
