import { connect } from "node:net";
import { serveAdmin } from "../../../src/admin/serve.ts";
import type { NodeView } from "../../../src/admin/view-form.ts";
import { systemClock } from "../../../src/async/index.ts";
import { createMetrics, Health, silentLog } from "../../../src/telemetry/index.ts";
import { hold, type Target, texts } from "../target.ts";

const view: NodeView = {
  name: "fwd",
  version: "1.2.3",
  startedMs: 1000,
  seenMs: 61_000,
  isReady: true,
  conditions: [],
  identity: { spiffeId: "spiffe://example.org/fwd", expiresMs: 3_661_000 },
  pfs: [],
  connections: [],
  resources: [],
  troubles: [],
};

/** What the server sends to one connection that says this and then no more. */
function answerTo(port: number, request: Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = connect({ host: "127.0.0.1", port });
    socket.on("data", (piece) => {
      answer += piece.toString("latin1");
      if (answer.length > 64) socket.destroy();
    });
    socket.on("error", (error: NodeJS.ErrnoException) =>
      error.code === "ECONNRESET" ? resolve(answer) : reject(error),
    );
    socket.on("close", () => resolve(answer));
    socket.end(request.length === 0 ? "\n" : request);
  });
}

const LOGGED_FAILURE = /^HTTP\/1\.1 5(?!03)/;

/** A listener of its own for each process. */
export async function adminTargets(): Promise<readonly Target[]> {
  let server: Promise<Awaited<ReturnType<typeof serveAdmin>>> | undefined;
  const open = () => {
    const source = { view: () => view, onChange: () => () => {} };
    const health = new Health(systemClock);
    const listenOn = { host: "127.0.0.1", port: 0 };
    server ??= serveAdmin({ listenOn, health, metrics: createMetrics(), source, clock: systemClock, log: silentLog });
    return server;
  };
  return [
    {
      name: "admin-request",
      says: "what a browser or a probe says to the admin port",
      seeds: texts(
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "HEAD /readyz?verbose HTTP/1.1\r\nHost: 127.0.0.1:9871\r\nConnection: close\r\n\r\n",
        "GET /events HTTP/1.0\r\nHost: [::1]\r\n\r\n",
        "GET // HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
      ),
      words: [
        "//",
        "http://",
        "\\",
        "%",
        "@",
        "?",
        "#",
        "[",
        "]",
        "*",
        "..",
        "\r\n",
        "Host: ",
        "/status.json",
        "/healthz",
        "__proto__",
      ],
      mostBytes: 1024,
      growsTo: 0,
      refusals: [],
      async run(input) {
        const { url } = await open();
        const answer = await answerTo(Number(new URL(url).port), input);
        hold(!LOGGED_FAILURE.test(answer), () => `is answered ${answer.slice(0, 40)}`);
        return answer.slice(0, 14) || "nothing";
      },
      async close() {
        await (await server)?.close();
        server = undefined;
      },
    },
  ];
}
