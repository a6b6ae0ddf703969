import { RpcError } from "../../src/rpc/index.ts";
import { readToken } from "./peer-token.ts";

/** The path of a registration, which travels in a header and not in the message (nsm-protocol §4.3). */
interface RegistryPath {
  Index: number;
  PathSegments: { token: string }[] | null;
}

/** Who asks and who answers, each by its token for the other. */
export interface RegistryHop {
  readonly callerToken: string;
  readonly ownToken: string;
}

/**
 * Takes this hop's place in the path of a registration. Returns the header for the answer, with the caller's index, and the
 * `path_ids` of the entry with the two SPIFFE IDs in their places.
 * @throws {RpcError} INVALID_ARGUMENT when the header is no path or its index lies outside.
 */
export function extendRegistryPath(
  header: string,
  pathIds: readonly string[],
  hop: RegistryHop,
): { header: string; pathIds: string[] } {
  const path = parsePath(header);
  const segments = path.PathSegments ?? [];
  if (path.Index < 0 || (segments.length > 0 && path.Index >= segments.length)) {
    throw new RpcError(
      "INVALID_ARGUMENT",
      `registry path index ${path.Index} lies outside the ${segments.length} segments`,
    );
  }
  const at = segments.length === 0 ? 0 : path.Index;
  const ids = [...pathIds];
  for (const [offset, token] of [hop.callerToken, hop.ownToken].entries()) {
    segments[at + offset] = { token };
    ids[at + offset] = readToken(token).sub;
  }
  return { header: JSON.stringify({ Index: at, PathSegments: segments }), pathIds: ids };
}

function parsePath(header: string): RegistryPath {
  try {
    const path = JSON.parse(header);
    if (Number.isInteger(path?.Index) && (path.PathSegments === null || Array.isArray(path.PathSegments))) return path;
  } catch {
    // reported below, together with JSON of another shape
  }
  throw new RpcError("INVALID_ARGUMENT", `cannot parse the registry path "${header.slice(0, 80)}"`);
}
