// A listener that only this machine reaches, and that no page of another site can query through a browser here.
import type { Server as HttpServer, IncomingMessage } from "node:http";
import type { Server } from "node:net";
import { guarded } from "../async/index.ts";

/** Why a listener could not start; `what` it was to serve. */
type AdminFault =
  | { readonly kind: "not-loopback"; readonly what: string; readonly host: string }
  | { readonly kind: "cannot-listen"; readonly what: string; readonly host: string; readonly port: number };

/** A listener could not start; the forwarder can do its work without it. */
export class AdminError extends Error {
  override readonly name = "AdminError";
  readonly fault: AdminFault;

  constructor(fault: AdminFault, options?: ErrorOptions) {
    super(describe(fault, options?.cause), options);
    this.fault = fault;
  }
}

function describe(fault: AdminFault, cause: unknown): string {
  if (fault.kind === "not-loopback") {
    return `Cannot serve ${fault.what} on ${fault.host}: it has no access control, so only loopback addresses are taken; want localhost, 127.0.0.1 or [::1], and forward the port`;
  }
  const why = cause instanceof Error ? cause.message : String(cause);
  return `Cannot serve ${fault.what} on ${fault.host} port ${fault.port}: ${why}; choose another port, or off`;
}

/** Where to listen; port 0 lets the system choose. */
export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/**
 * Listens where only this machine can connect. Returns where, `http://127.0.0.1:9871`.
 * @throws {AdminError}
 */
export async function listenOnLoopback(server: Server, where: ListenAddress, what: string): Promise<string> {
  if (!isLoopback(where.host)) throw new AdminError({ kind: "not-loopback", what, host: where.host });
  return `http://${await listening(server, where, what)}`;
}

/**
 * Listens, without keeping the process alive. Returns where, `127.0.0.1:9871`.
 * @throws {AdminError} cannot-listen.
 */
export function listening(server: Server, { host, port }: ListenAddress, what: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const failed = (cause: Error) => reject(new AdminError({ kind: "cannot-listen", what, host, port }, { cause }));
    server.once("error", guarded("admin-socket", failed, reject));
    const broke = (cause: Error) => {
      server.close();
      failed(cause);
    };
    const listens = () => {
      server.removeAllListeners("error");
      server.unref();
      const { address, family, port: real } = server.address() as { address: string; family: string; port: number };
      resolve(`${family === "IPv6" ? `[${address}]` : address}:${real}`);
    };
    server.listen({ host, port }, guarded("admin-socket", listens, broke));
  });
}

/** Ends the listener and every connection. */
export function closeServer(server: HttpServer): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

/** Whether the Host header is a loopback name: a page of another site, whose name was made to point at us, must not read ours. */
export function isRequestedByLoopbackName(request: IncomingMessage): boolean {
  return isLoopback((request.headers.host ?? "").replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1"));
}

/** Whether the name is one of this machine alone. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}
