import { isDeepStrictEqual } from "node:util";

/** Where two values as JSON has them differ, one line each: a folded comparison of a whole node hides just that. */
export function differences(before: unknown, now: unknown, path = ""): readonly string[] {
  if (isDeepStrictEqual(before, now)) return [];
  if (!isBranch(before) || !isBranch(now) || Array.isArray(before) !== Array.isArray(now)) {
    return [`${path || "all"}: was ${textOf(before)}, is ${textOf(now)}`];
  }
  const keys = new Set([...Object.keys(before), ...Object.keys(now)]);
  return [...keys].flatMap((key) =>
    differences(before[key], now[key], `${path}/${nameOf(before[key] ?? now[key], key)}`),
  );
}

interface Branch {
  readonly [key: string]: unknown;
}

function isBranch(value: unknown): value is Branch {
  return typeof value === "object" && value !== null;
}

/** An entry of a list says more by its name than by its place. */
function nameOf(value: unknown, key: string): string {
  if (!isBranch(value)) return key;
  const name = value["ifname"] ?? value["address"];
  return typeof name === "string" && /^\d+$/.test(key) ? `${key} (${name})` : key;
}

function textOf(value: unknown): string {
  return value === undefined ? "missing" : JSON.stringify(value);
}
