// CPU and heap profiles of the running process, on the paths of Go's pprof and in the form that Chrome DevTools opens.
// What they hold are names of functions and counts: never a value, so no key or token. A heap snapshot would hold all of them
// and stop the process for seconds: that is left to the debugger.
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Session } from "node:inspector/promises";
import { type Clock, guarded } from "../async/index.ts";
import type { Log } from "../telemetry/index.ts";
import { closeServer, isRequestedByLoopbackName, listenOnLoopback } from "./loopback.ts";
import type { AdminServer } from "./serve.ts";

const { createServer } = process.getBuiltinModule("node:http");

interface ProfileOptions {
  readonly listenOn: { readonly host: string; readonly port: number };
  readonly clock: Clock;
  readonly log: Log;
}

/** One kind of profile: taken while `wait` runs. */
interface Kind {
  readonly name: string;
  readonly extension: string;
  readonly seconds: number;
  readonly take: (session: Session, wait: () => Promise<void>) => Promise<object>;
}

const kinds: Readonly<Record<string, Kind>> = {
  "/debug/pprof/profile": {
    name: "CPU profile",
    extension: "cpuprofile",
    seconds: 30, // Go's default
    async take(session, wait) {
      await session.post("Profiler.enable");
      await session.post("Profiler.start");
      await wait();
      return (await session.post("Profiler.stop")).profile;
    },
  },
  "/debug/pprof/heap": {
    name: "heap profile",
    extension: "heapprofile",
    seconds: 10,
    async take(session, wait) {
      await session.post("HeapProfiler.startSampling", { samplingInterval: 32_768 });
      await wait();
      return (await session.post("HeapProfiler.stopSampling")).profile;
    },
  },
};

const LONGEST_SECONDS = 300;

const INDEX = `Profiles of this process. Save one and load it in Chrome DevTools (Performance or Memory), or in an editor.
/debug/pprof/profile?seconds=30   where CPU time goes, as .cpuprofile
/debug/pprof/heap?seconds=10      what is allocated meanwhile and still there at the end, as .heapprofile
seconds: 1 to ${LONGEST_SECONDS}. One profile of a kind at a time; closing the connection ends it.
`;

/**
 * Serves the profiles on a loopback address. Nothing is loaded and nothing costs until one is requested.
 * @throws {AdminError}
 */
export async function serveProfiles(options: ProfileOptions): Promise<AdminServer> {
  const busy = new Set<Kind>();
  const limits = { headersTimeout: 5000, requestTimeout: 10_000, maxHeaderSize: 8192 };
  const onRequest = (request: IncomingMessage, response: ServerResponse) => {
    serve(options, busy, request, response).catch((err: unknown) => {
      options.log.warn("profile-failed", { path: request.url, err });
      if (!response.writableEnded) refuse(response, 500, "This profile failed; the log says why\n");
    });
  };
  const broke = (_error: Error, _request: IncomingMessage, response: ServerResponse) => void response.destroy();
  const server = createServer(limits, guarded("admin-http", onRequest, broke));
  server.maxConnections = 8;
  const url = await listenOnLoopback(server, options.listenOn, "profiles");
  const failed = (err: Error) => options.log.warn("profile-listener-failed", { err });
  server.on("error", guarded("admin-socket", failed));
  return { url, close: () => closeServer(server) };
}

async function serve(
  options: ProfileOptions,
  busy: Set<Kind>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (request.method !== "GET") return refuse(response, 405, "Only GET\n");
  if (!isRequestedByLoopbackName(request)) return refuse(response, 421, "Ask for this page by a loopback name\n");
  const { pathname, searchParams } = new URL(request.url ?? "/", "http://localhost");
  const kind = kinds[pathname];
  if (!kind) {
    const isIndex = /^\/(debug\/pprof\/?)?$/.test(pathname);
    return refuse(response, isIndex ? 200 : 404, isIndex ? INDEX : `No such profile.\n${INDEX}`);
  }
  const seconds = Number(searchParams.get("seconds") ?? kind.seconds);
  if (!(seconds >= 1 && seconds <= LONGEST_SECONDS)) return refuse(response, 400, INDEX);
  if (busy.has(kind)) return refuse(response, 409, `A ${kind.name} is being taken already; wait for its end\n`);
  busy.add(kind);
  try {
    await answer(options, kind, seconds, response);
  } finally {
    busy.delete(kind);
  }
}

async function answer(
  { clock, log }: ProfileOptions,
  kind: Kind,
  seconds: number,
  response: ServerResponse,
): Promise<void> {
  const { Session } = await import("node:inspector/promises");
  const gone = new AbortController();
  const closed = guarded("admin-http", () => gone.abort());
  response.once("close", closed);
  const session = new Session();
  session.connect();
  try {
    log.info("profile-begun", { kind: kind.name, seconds });
    const profile = await kind.take(session, () => clock.sleep(seconds * 1000, gone.signal).catch(() => {}));
    if (gone.signal.aborted) return;
    response.writeHead(200, {
      "content-type": "application/json",
      "content-disposition": `attachment; filename="forwarder-${Math.round(clock.now() / 1000)}.${kind.extension}"`,
      "x-content-type-options": "nosniff",
      "cache-control": "no-store",
    });
    response.end(JSON.stringify(profile));
  } finally {
    session.disconnect();
  }
}

function refuse(response: ServerResponse, code: number, text: string): void {
  response.writeHead(code, { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff" });
  response.end(text);
}
