/**
 * The registry's own path: who registered us through whom. Travels as JSON in the header `path`: the original's grpcmetadata
 * (nsm-protocol §4.3).
 */
export interface RegistryPath {
  readonly index: number;
  readonly tokens: readonly string[];
}

/** Name of the header. */
export const PATH_HEADER = "path";

/** Before the first answer. */
export const EMPTY_PATH: RegistryPath = { index: 0, tokens: [] };

/** More hops than this are no path. */
const SEGMENT_LIMIT = 16;

/** As the header wants it; Go writes an empty list as null. */
export function formatRegistryPath({ index, tokens }: RegistryPath): string {
  const PathSegments = tokens.length === 0 ? null : tokens.map((token) => ({ token }));
  return JSON.stringify({ Index: index, PathSegments });
}

/** The last of the header's values counts; undefined when there is none, or none that can be used. */
export function parseRegistryPath(values: readonly string[] | undefined): RegistryPath | undefined {
  const text = values?.at(-1);
  if (text === undefined) return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return undefined;
  }
  const { Index: index = 0, PathSegments: segments } = (parsed ?? {}) as { Index?: unknown; PathSegments?: unknown };
  const list: readonly unknown[] = Array.isArray(segments) ? segments : [];
  const tokens = list.map((segment) => (segment as { token?: unknown } | null)?.token);
  const isUsable =
    Number.isInteger(index) &&
    (index as number) >= 0 &&
    (index as number) < Math.max(1, tokens.length) &&
    tokens.length <= SEGMENT_LIMIT &&
    tokens.every((token) => typeof token === "string");
  return isUsable ? { index: index as number, tokens: tokens as string[] } : undefined;
}
