import { RpcError } from "./status.ts";

/** Where to listen or to dial. */
export type Target =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/** sizeof(sun_path) in struct sockaddr_un (include/uapi/linux/un.h), with the final NUL. */
const SUN_PATH_BYTES = 108;

/**
 * Reads `unix:///abs/path` or `tcp://host:port`.
 * @throws {RpcError} INVALID_ARGUMENT for anything else: a target may come from a peer.
 */
export function parseTarget(text: string): Target {
  const path = /^unix:(?:\/\/)?(\/(?!\/)[^\0]+)$/.exec(text)?.[1];
  if (path !== undefined) {
    if (Buffer.byteLength(path) >= SUN_PATH_BYTES)
      throw bad(text, `a socket path has at most ${SUN_PATH_BYTES - 1} bytes`);
    return { kind: "unix", path };
  }
  const [, bracketed, plain, port] = /^tcp:\/\/(?:\[([0-9a-fA-F:.%]+)\]|([^:/[\]\s]*)):(\d{1,5})$/.exec(text) ?? [];
  if (port === undefined || Number(port) > 65_535) throw bad(text, "want unix:///path or tcp://host:port");
  return { kind: "tcp", host: bracketed ?? plain ?? "", port: Number(port) };
}

function bad(text: string, why: string): RpcError {
  return new RpcError("INVALID_ARGUMENT", `Cannot use the address ${JSON.stringify(text)}: ${why}`);
}
