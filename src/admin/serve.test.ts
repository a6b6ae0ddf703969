import assert from "node:assert/strict";
import { request } from "node:http";
import { connect, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import test from "node:test";
import { until, within } from "../../test/scenes/until.ts";
import { systemClock } from "../async/index.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { createMetrics, Health, silentLog } from "../telemetry/index.ts";
import { AdminError } from "./loopback.ts";
import { type AdminOptions, serveAdmin } from "./serve.ts";
import type { NodeView, NodeViewSource } from "./view-form.ts";

const evil = `<script>alert("1")</script>'&`;
const pf = {
  address: "0000:3b:00.0",
  ifname: "ens1f0",
  driver: evil,
  carrier: "up",
  resources: [],
  totalVfs: 4,
} as const;
const vf = { address: "0000:3b:02.0", index: 0, state: "idle", conditions: [] } as const;
const failed = { code: "bind-failed", effect: "unhealthy", label: "not bound recently" } as const;
const viewNow: NodeView = {
  name: "fwd",
  version: "1.2.3",
  startedMs: 1000,
  seenMs: 61_000,
  isReady: true,
  conditions: [],
  identity: { spiffeId: evil, expiresMs: 3_661_000 },
  pfs: [
    {
      ...pf,
      vfs: [
        { ...vf, state: "ready", pod: evil, connection: evil, token: "sriov-1a2b…" },
        { ...vf, address: "0000:3b:02.1", index: 1, conditions: [{ ...failed, text: evil }] },
        { ...vf, address: "0000:3b:02.2", index: 2 },
      ],
    },
  ],
  connections: [],
  resources: [{ name: evil, total: 2, inUse: 1, free: 1, unavailable: 0 }],
  troubles: [{ atMs: 1000, level: "error", event: evil, text: evil }],
};

function sourceOf(
  view: () => NodeView = () => viewNow,
): NodeViewSource & { change(): void; readonly listeners: number } {
  const listeners = new Set<() => void>();
  return {
    view,
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    change: () => {
      for (const listener of listeners) listener();
    },
    get listeners() {
      return listeners.size;
    },
  };
}

function optionsOf(change: Partial<AdminOptions> = {}): AdminOptions {
  const health = new Health(systemClock);
  const listenOn = { host: "127.0.0.1", port: 0 };
  const common = { listenOn, health, metrics: createMetrics(), source: sourceOf() };
  return { ...common, clock: systemClock, log: silentLog, ...change };
}

async function withServer(options: AdminOptions, act: (url: string) => Promise<void>): Promise<void> {
  const server = await serveAdmin(options);
  try {
    await act(server.url);
  } finally {
    await server.close();
  }
}

/** fetch() does not let its user choose the Host header. */
function statusWithHost(url: string, host: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { headers: { host } }, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    });
    outgoing.on("error", reject).end();
  });
}

/** Of what no client makes of a URL. */
function statusOfTarget(url: string, path: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const { hostname: host, port } = new URL(url);
    const sent = request({ host, port, path }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    sent.on("error", reject);
    sent.end();
  });
}

test("serveAdmin() shows the node with every text escaped and forbids foreign scripts", async () => {
  await withServer(optionsOf(), async (url) => {
    const answer = await fetch(url);
    const page = await answer.text();
    assert.match(answer.headers.get("content-type") ?? "", /^text\/html/);
    assert.match(answer.headers.get("content-security-policy") ?? "", /default-src 'none'/);
    assert.ok(!page.includes("<script>alert"), page);
    assert.match(page, /&lt;script&gt;alert\(&quot;1&quot;\)/);
    assert.match(page, /<tr id="vf-0000-3b-02-0" class="good"/);
    assert.match(page, /href="#vf-0000-3b-02-1" aria-label="VF 1, idle, /);
    assert.match(page, /No client has a connection/);
    assert.deepEqual(await (await fetch(`${url}/status.json`)).json(), viewNow);
  });
});

async function* readinessOf(events: Response): AsyncGenerator<boolean, undefined> {
  let text = "";
  for await (const piece of (events.body ?? assert.fail()).pipeThrough(new TextDecoderStream())) {
    const lines = `${text}${piece}`.split("\n");
    text = lines.pop() ?? "";
    for (const line of lines) if (line.startsWith("data: ")) yield JSON.parse(line.slice("data: ".length)).isReady;
  }
  return undefined;
}

test("serveAdmin() sends a view at once and at each change, and forgets a reader that has gone", async () => {
  let isReady = true;
  const source = sourceOf(() => ({ ...viewNow, isReady }));
  await withServer(optionsOf({ source }), async (url) => {
    const leave = new AbortController();
    const answer = await fetch(`${url}/status.events`, { signal: leave.signal });
    assert.match(answer.headers.get("content-type") ?? "", /^text\/event-stream/);
    const views = readinessOf(answer);
    const next = async () => (await within("the next view comes", views.next())).value;
    assert.equal(await next(), true);
    isReady = false;
    source.change();
    assert.equal(await next(), false);
    leave.abort();
    await until("the server forgets the reader that has gone", () => source.listeners === 0);
  });
});

/** A peer that has connected, and says this. */
function peerOf(url: string, says = ""): { readonly socket: Socket; isClosed(): boolean } {
  const socket = connect(Number(new URL(url).port), "127.0.0.1").on("error", () => {});
  let isClosed = false;
  socket.resume().on("close", () => (isClosed = true));
  socket.write(says);
  return { socket, isClosed: () => isClosed };
}

const WATCH = "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";

test("serveAdmin() lets a peer go that has said nothing for some seconds, and ends those that are left", async () => {
  const clock = new HandClock();
  await withServer(optionsOf({ clock }), async (url) => {
    const silent = peerOf(url);
    await until("it is awaited", () => clock.timerCount === 1);
    await clock.pass(4_999);
    assert.equal(silent.isClosed(), false);
    const late = peerOf(url);
    await until("the other is awaited, too", () => clock.timerCount === 2);
    await clock.pass(1);
    await until("it was let go", silent.isClosed);
    assert.deepEqual([clock.timerCount, late.isClosed()], [1, false]);
    await withServer(optionsOf({ clock }), async (other) => {
      peerOf(other);
      await until("it is awaited there", () => clock.timerCount === 2);
    });
    await until("the end of the listener is the end of its peers", () => clock.timerCount === 1);
  });
  await until("that of the first listener, too", () => clock.timerCount === 0);
});

test("serveAdmin() holds so many connections, and lets no further one in before one has ended", async () => {
  const clock = new HandClock();
  await withServer(optionsOf({ clock }), async (url) => {
    for (let n = 0; n < 64; n++) peerOf(url);
    await until("all are awaited", () => clock.timerCount === 64);
    await until("a further one is refused", peerOf(url).isClosed);
    assert.equal(clock.timerCount, 64);
    await clock.pass(5_000);
    assert.equal((await fetch(`${url}/healthz`)).status, 200);
  });
});

test("serveAdmin() asks no peer on loopback who it is, and ends a stream of which only the head was wanted", async () => {
  const source = sourceOf();
  const admit = () => Promise.reject(new Error("it was asked"));
  await withServer(optionsOf({ source, admit }), async (url) => {
    const answer = await within("the head has come", fetch(`${url}/events`, { method: "HEAD" }));
    assert.deepEqual([answer.status, source.listeners], [200, 0]);
    const head = await fetch(url, { method: "HEAD" });
    assert.deepEqual([head.status, await head.text()], [200, ""]);
    assert.ok(Number(head.headers.get("content-length")) > 1_000);
  });
});

for (const how of ["on loopback", "off loopback"] as const) {
  test(`serveAdmin() ${how} keeps a reader that is silent, once it was let in`, async () => {
    const clock = new HandClock();
    const off = { listenOn: { host: "0.0.0.0", port: 0 }, admit: async (stream: Duplex) => stream };
    const source = sourceOf();
    await withServer(optionsOf({ clock, source, ...(how === "off loopback" ? off : {}) }), async (url) => {
      const { socket, isClosed } = peerOf(url, WATCH);
      await until("it watches", () => source.listeners === 1);
      await clock.pass(60_000);
      assert.deepEqual([isClosed(), source.listeners], [false, 1]);
      socket.destroy();
      await until("it has gone", () => source.listeners === 0);
    });
    await until("no timer is left", () => clock.timerCount === 0);
  });
}

test("serveAdmin() off loopback ends the connection of a peer that is not let in", async () => {
  const admit = () => Promise.reject(new Error("it is another peer"));
  const clock = new HandClock();
  await withServer(optionsOf({ clock, listenOn: { host: "0.0.0.0", port: 0 }, admit }), async (url) => {
    const { isClosed } = peerOf(url);
    await until("it is refused", isClosed);
    assert.equal(clock.timerCount, 0);
  });
});

test("serveAdmin() lets a bounded number watch", async () => {
  const source = sourceOf();
  await withServer(optionsOf({ source }), async (url) => {
    const leave = new AbortController();
    // An answer without a reference is collected, and its connection with it.
    const answers: Response[] = [];
    for (let n = 0; n < 17; n++) answers.push(await fetch(`${url}/events`, { signal: leave.signal }));
    const codes = answers.map(({ status }) => status);
    assert.deepEqual([codes.filter((code) => code === 200).length, codes.at(-1)], [16, 503]);
    leave.abort();
  });
});

test("serveAdmin() answers ready only while nothing blocks, and says what does", async () => {
  const options = optionsOf();
  const svid = options.health.condition("svid-missing", "Waiting for the SPIRE agent");
  await withServer(options, async (url) => {
    const waiting = await fetch(`${url}/readyz`);
    assert.deepEqual([waiting.status, await waiting.text()], [503, "svid-missing: Waiting for the SPIRE agent\n"]);
    assert.equal((await fetch(`${url}/healthz`)).status, 200);
    svid.clear();
    const vf = options.health.condition("vf-withheld");
    vf.raise("Odd", "0000:3b:02.1");
    const ready = await fetch(`${url}/readyz`);
    assert.deepEqual([ready.status, await ready.text()], [200, "ready\n"]);
    const verbose = await (await fetch(`${url}/readyz?verbose`)).text();
    assert.equal(verbose, "ready\nwarning vf-withheld 0000:3b:02.1: Odd\n");
  });
});

test("serveAdmin() serves metrics, style and script, and refuses the rest", async () => {
  const options = optionsOf();
  options.metrics.counter({ name: "nsm_requests_total", help: "Requests" }).add({});
  await withServer(options, async (url) => {
    assert.match(await (await fetch(`${url}/metrics`)).text(), /^nsm_requests_total 1$/m);
    for (const name of ["page.css", "page.js"]) assert.equal((await fetch(`${url}/${name}`)).status, 200);
    assert.equal((await fetch(`${url}/../etc/passwd`)).status, 404);
    assert.equal((await fetch(`${url}/__proto__`)).status, 404);
    assert.equal(await statusOfTarget(url, "//"), 400);
    assert.equal((await fetch(url, { method: "POST", body: "x" })).status, 405);
    assert.equal(await statusWithHost(url, "evil.example:9871"), 421);
    assert.equal(await statusWithHost(url, "localhost:9871"), 200);
  });
});

test("serveAdmin() answers 500 when the source fails, and stays up", async () => {
  const source = sourceOf(() => {
    throw new Error("gone");
  });
  await withServer(optionsOf({ source }), async (url) => {
    assert.equal((await fetch(url)).status, 500);
    assert.equal((await fetch(`${url}/healthz`)).status, 200);
  });
});

for (const host of ["0.0.0.0", "::", "10.0.0.1", "node1", "127.0.0.1.example"]) {
  test(`serveAdmin() refuses ${host}`, async () => {
    await assert.rejects(serveAdmin(optionsOf({ listenOn: { host, port: 0 } })), (error: unknown) => {
      assert.ok(error instanceof AdminError);
      assert.equal(error.fault.kind, "not-loopback");
      return true;
    });
  });
}

test("serveAdmin() says which port is taken", async () => {
  await withServer(optionsOf(), async (url) => {
    const port = Number(new URL(url).port);
    await assert.rejects(
      serveAdmin(optionsOf({ listenOn: { host: "127.0.0.1", port } })),
      /port \d+: .*EADDRINUSE.*choose another port/,
    );
  });
});
