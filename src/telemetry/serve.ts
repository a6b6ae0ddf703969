import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Clock } from "../async/index.ts";
import type { Health } from "./health.ts";
import type { Log } from "./log.ts";
import type { Metrics } from "./metrics.ts";
import { type PageContent, pageCss, pageScript, renderMain, renderPage } from "./page.ts";
import type { StatusSource } from "./status.ts";

// An import would read every property of node:http, and some of them load a client and a WebSocket: 10 MiB and 20 ms.
const { createServer } = process.getBuiltinModule("node:http");

/** Why the admin listener could not start. */
export type AdminFault =
  | { readonly kind: "not-loopback"; readonly host: string }
  | { readonly kind: "cannot-listen"; readonly host: string; readonly port: number };

/** The admin listener could not start; the forwarder can do its work without it. */
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
    return `Cannot serve the status page on ${fault.host}: it has no access control, so only loopback addresses are taken; want localhost, 127.0.0.1 or [::1]`;
  }
  const why = cause instanceof Error ? cause.message : String(cause);
  return `Cannot serve the status page on ${fault.host} port ${fault.port}: ${why}; choose another port, or off`;
}

export interface AdminOptions {
  readonly listenOn: { readonly host: string; readonly port: number };
  /** Heading of the page, for example the forwarder's name. */
  readonly title: string;
  readonly health: Health;
  readonly metrics: Metrics;
  readonly status: StatusSource;
  readonly clock: Clock;
  readonly log: Log;
}

/** The running listener. */
export interface AdminServer {
  /** Where it listens really, `http://127.0.0.1:9871`. */
  readonly url: string;
  /** Ends the listener and every connection. */
  close(): Promise<void>;
}

interface Answer {
  readonly code: number;
  readonly type: "text/html" | "text/plain" | "text/css" | "text/javascript" | "application/json";
  readonly body: string;
}

/** Nothing from elsewhere, nothing inline: what a peer's text could smuggle into the page would not run. */
const CONTENT_POLICY =
  "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/**
 * Serves `/` (status page), `/status.json`, `/metrics`, `/healthz` (the process answers) and `/readyz` (it can serve; 503 with
 * the reasons if not) on a loopback address.
 * @throws {AdminError}
 */
export async function serveAdmin(options: AdminOptions): Promise<AdminServer> {
  const { host, port } = options.listenOn;
  if (!isLoopback(host)) throw new AdminError({ kind: "not-loopback", host });
  const server = createServer(
    { headersTimeout: 5000, requestTimeout: 10_000, maxHeaderSize: 8192 },
    (request, response) => {
      answer(options, request).then(
        (found) => send(response, request, found),
        (error: unknown) => {
          options.log.warn("admin-page-failed", { path: request.url, err: error });
          send(response, request, plain(500, "This page failed; the log says why\n"));
        },
      );
    },
  );
  server.maxConnections = 32;
  await listen(server, host, port);
  server.on("error", (err) => options.log.warn("admin-listener-failed", { err }));
  server.unref();
  const { address, family, port: realPort } = server.address() as { address: string; family: string; port: number };
  const url = `http://${family === "IPv6" ? `[${address}]` : address}:${realPort}`;
  return { url, close: () => close(server) };
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const failed = (cause: Error) => reject(new AdminError({ kind: "cannot-listen", host, port }, { cause }));
    server.once("error", failed);
    server.listen({ host, port }, () => {
      server.off("error", failed);
      resolve();
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

async function answer(options: AdminOptions, request: IncomingMessage): Promise<Answer> {
  if (request.method !== "GET" && request.method !== "HEAD") return plain(405, "Only GET\n");
  if (!isLoopback(hostOf(request))) return plain(421, "Ask for this page by a loopback name\n");
  switch (new URL(request.url ?? "/", "http://localhost").pathname) {
    case "/":
      return { code: 200, type: "text/html", body: renderPage(content(options)) };
    case "/main.html":
      return { code: 200, type: "text/html", body: renderMain(content(options)) };
    case "/page.css":
      return { code: 200, type: "text/css", body: pageCss };
    case "/page.js":
      return { code: 200, type: "text/javascript", body: pageScript };
    case "/status.json":
      return { code: 200, type: "application/json", body: `${JSON.stringify(content(options), undefined, 1)}\n` };
    case "/metrics":
      return plain(200, await options.metrics.text());
    case "/healthz":
      return plain(200, "ok\n");
    case "/readyz":
      return readiness(options.health);
    default:
      return plain(404, "No such page; there are / /status.json /metrics /healthz /readyz\n");
  }
}

function readiness(health: Health): Answer {
  if (health.ready.value) return plain(200, "ready\n");
  const blocking = health.ailments().filter((ailment) => ailment.severity === "blocking");
  return plain(
    503,
    blocking
      .map(({ code, subject, sentence }) => `${[code, subject].filter(Boolean).join(" ")}: ${sentence}\n`)
      .join(""),
  );
}

function content({ title, health, status, clock }: AdminOptions): PageContent {
  return {
    title,
    isReady: health.ready.value === true,
    ailments: health.ailments(),
    facts: status.facts(),
    tables: status.tables(),
    nowMs: clock.now(),
  };
}

function plain(code: number, body: string): Answer {
  return { code, type: "text/plain", body };
}

function send(response: ServerResponse, request: IncomingMessage, { code, type, body }: Answer): void {
  response.writeHead(code, {
    "content-type": `${type}; charset=utf-8`,
    "content-length": Buffer.byteLength(body),
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
  });
  response.end(request.method === "HEAD" ? undefined : body);
}

/** The host part of the Host header: a page of another site, whose name was made to point at us, must not read ours. */
function hostOf(request: IncomingMessage): string {
  return (request.headers.host ?? "").replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1");
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}
