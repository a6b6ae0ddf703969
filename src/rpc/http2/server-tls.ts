import { isIP } from "node:net";
import type { Duplex } from "node:stream";
import { connect, getCACertificates, type TLSSocket } from "node:tls";
import { guarded } from "../../async/index.ts";
import { RpcError } from "../status.ts";
import type { ServerTls } from "../transport.ts";
import { endTogether } from "./tls.ts";

/**
 * TLS as the web has it, on a stream that was dialled: the server's certificate names its host, and an authority vouches for it.
 * @throws {RpcError} UNAVAILABLE with the reason.
 */
export async function connectByName(raw: Duplex, tls: ServerTls, signal: AbortSignal): Promise<TLSSocket> {
  const { name, rootsPem, certChainPem, keyPem } = tls;
  const done = Promise.withResolvers<void>();
  const lost = guarded("tls", () => done.reject(new Error("the peer closed the connection")));
  const aborted = guarded("abort", () => done.reject(signal.reason));
  raw.once("close", lost);
  signal.addEventListener("abort", aborted, { once: true });
  let socket: TLSSocket | undefined;
  try {
    signal.throwIfAborted();
    socket = connect({
      socket: raw,
      host: name,
      ...(isIP(name) === 0 ? { servername: name } : {}),
      ca: rootsPem ?? systemRoots(),
      cert: certChainPem,
      key: keyPem,
      minVersion: "TLSv1.2",
      ALPNProtocols: ["h2"],
    });
    socket.on("error", done.reject);
    socket.once(
      "secureConnect",
      guarded("tls", () => done.resolve(), done.reject),
    );
    await done.promise;
    if (socket.alpnProtocol !== "h2") throw new Error(`the peer does not speak HTTP/2 (ALPN ${socket.alpnProtocol})`);
    endTogether(socket, raw);
    return socket;
  } catch (error) {
    socket?.destroy();
    raw.destroy();
    const why = error instanceof Error ? error.message : String(error);
    throw new RpcError("UNAVAILABLE", `TLS handshake failed: ${why}`, { cause: error });
  } finally {
    raw.off("close", lost);
    signal.removeEventListener("abort", aborted);
  }
}

/** A bare image has no certificates of its own: Node's are there always. */
function systemRoots(): string[] {
  return [...new Set([...getCACertificates("default"), ...getCACertificates("system")])];
}
