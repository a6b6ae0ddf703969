import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { type Clock, guarded } from "../async/index.ts";
import type { Health, Log, Metrics, RaisedCondition } from "../telemetry/index.ts";
import { openListener } from "./listener.ts";
import { LiveViews, type RenderEvent } from "./live.ts";
import { AdminError, isLoopback, isRequestedByLoopbackName } from "./loopback.ts";
import { renderMain, renderPage } from "./page.ts";
import { pageScript, pageStyle } from "./page-files.ts";
import type { NodeViewSource } from "./view-form.ts";

// An import would read every property of node:http, and some of them load a client and a WebSocket: 10 MiB and 20 ms.
const { createServer } = process.getBuiltinModule("node:http");

export interface AdminOptions {
  readonly listenOn: { readonly host: string; readonly port: number };
  readonly health: Health;
  readonly metrics: Metrics;
  readonly source: NodeViewSource;
  /** Off loopback: does the TLS handshake and lets in whom it trusts. @throws with the reason. */
  readonly admit?: (stream: Duplex) => Promise<Duplex>;
  /** On loopback: takes over a connection that speaks gRPC. */
  readonly grpc?: (stream: Duplex, remote: string) => void;
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

const PAGE = "the status page";

/** Nothing from elsewhere, nothing inline: what a peer's text could smuggle into the page would not run. */
const CONTENT_POLICY =
  "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/**
 * Serves `/` (status page), `/events` (the same, live), `/status.json` and `/status.events`, `/metrics`, `/healthz` (the
 * process answers) and `/readyz` (it can serve; 503 with the reasons if not). On a loopback address to every process on this
 * node, and gRPC beside it; elsewhere over TLS, to those whom `admit` lets in.
 * @throws {AdminError}
 */
export async function serveAdmin(options: AdminOptions): Promise<AdminServer> {
  const { listenOn, admit, log } = options;
  const isOpen = isLoopback(listenOn.host);
  if (!isOpen && !admit) throw new AdminError({ kind: "not-loopback", what: PAGE, host: listenOn.host });
  const live = new LiveViews(options.source, options.clock);
  const limits = { headersTimeout: 5000, requestTimeout: 10_000, maxHeaderSize: 8192 };
  const onRequest = (request: IncomingMessage, response: ServerResponse) => {
    serve({ ...options, isOpen }, live, request, response).catch((error: unknown) => {
      log.warn("admin-page-failed", { path: request.url, err: error });
      if (response.headersSent) response.destroy();
      else send(response, plain(500, "This page failed; the log says why\n"));
    });
  };
  const broke = (_error: Error, _request: IncomingMessage, response: ServerResponse) => void response.destroy();
  const server = createServer(limits, guarded("admin-http", onRequest, broke));
  const http = (stream: Duplex) => void server.emit("connection", stream);
  const grpc = options.grpc ?? ((stream: Duplex) => void stream.destroy());
  const listener = await openListener(
    listenOn,
    { http, grpc, admit: isOpen ? undefined : admit },
    { what: PAGE, clock: options.clock, log },
  );
  return {
    url: `${isOpen ? "http" : "https"}://${listener.address}`,
    async close() {
      listener.close();
    },
  };
}

async function serve(
  options: AdminOptions & { readonly isOpen: boolean },
  live: LiveViews,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const refusal = refusalOf(request, options.isOpen);
  const url = URL.parse(request.url ?? "/", "http://localhost");
  if (refusal || !url) return send(response, refusal ?? plain(400, "Cannot read this address\n"));
  const { pathname, searchParams } = url;
  const render = streams[pathname];
  if (!render) send(response, await answer(options, pathname, searchParams.has("verbose")));
  else if (live.isFull) send(response, plain(503, "Too many watch this node already\n"));
  else {
    response.writeHead(200, headersOf("text/event-stream"));
    if (request.method === "HEAD") response.end();
    else live.serve(response, render);
  }
}

/** What is sent at each change, on one line. */
const streams: Readonly<Record<string, RenderEvent>> = {
  "/events": (view) => JSON.stringify(renderMain(view).text),
  "/status.events": (view) => JSON.stringify(view),
};

function refusalOf(request: IncomingMessage, isOpen: boolean): Answer | undefined {
  if (request.method !== "GET" && request.method !== "HEAD") return plain(405, "Only GET\n");
  if (isOpen && !isRequestedByLoopbackName(request)) return plain(421, "Ask for this page by a loopback name\n");
  return undefined;
}

async function answer({ source, health, metrics }: AdminOptions, path: string, isVerbose: boolean): Promise<Answer> {
  switch (path) {
    case "/":
      return { code: 200, type: "text/html", body: renderPage(source.view()) };
    case "/page.css":
      return { code: 200, type: "text/css", body: pageStyle };
    case "/page.js":
      return { code: 200, type: "text/javascript", body: pageScript };
    case "/status.json":
      return { code: 200, type: "application/json", body: `${JSON.stringify(source.view(), undefined, 1)}\n` };
    case "/metrics":
      return plain(200, await metrics.text());
    case "/healthz":
      return plain(200, "ok\n");
    case "/readyz":
      return readiness(health, isVerbose);
    default:
      return plain(
        404,
        `No such page; there are / /status.json /metrics /healthz /readyz ${Object.keys(streams).join(" ")}\n`,
      );
  }
}

/** A line for each condition that blocks; with `?verbose` also for those that do not. */
function readiness(health: Health, isVerbose: boolean): Answer {
  const isReady = health.ready.value === true;
  const shown = health.conditions().filter(({ severity }) => isVerbose || severity === "blocking");
  return plain(isReady ? 200 : 503, `${isReady ? "ready\n" : ""}${shown.map(lineOf).join("")}`);
}

function lineOf({ code, subject, severity, sentence, causedBy }: RaisedCondition): string {
  const cause = causedBy.length > 0 ? ` (follows from ${causedBy.join(", ")})` : "";
  const kind = severity === "blocking" ? "" : `${severity} `;
  return `${kind}${[code, subject].filter(Boolean).join(" ")}: ${sentence}${cause}\n`;
}

function plain(code: number, body: string): Answer {
  return { code, type: "text/plain", body };
}

function headersOf(type: string): Record<string, string> {
  return {
    "content-type": `${type}; charset=utf-8`,
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
  };
}

/** Of an answer to HEAD, Node leaves the body out. */
function send(response: ServerResponse, { code, type, body }: Answer): void {
  response.writeHead(code, { ...headersOf(type), "content-length": Buffer.byteLength(body) });
  response.end(body);
}
