import assert from "node:assert/strict";
import { request } from "node:http";
import test from "node:test";
import { systemClock } from "../async/index.ts";
import { Health } from "./health.ts";
import { createMetrics } from "./metrics.ts";
import { silentLog } from "./recording-log.ts";
import { AdminError, type AdminOptions, serveAdmin } from "./serve.ts";
import type { StatusSource } from "./status.ts";

const evil = `<script>alert("1")</script>'&`;
const status: StatusSource = {
  facts: () => [{ name: "SPIFFE ID", value: evil }],
  tables: () => [
    {
      title: "Functions",
      columns: ["address", "state"],
      rows: [
        { cells: ["0000:3b:02.0", "ready"], state: "good" },
        { cells: [evil, evil], state: "bad" },
      ],
      empty: "none",
    },
    { title: "Connections", columns: ["id"], rows: [], empty: "No client asked yet" },
  ],
};

function optionsOf(change: Partial<AdminOptions> = {}): AdminOptions {
  const health = new Health(systemClock);
  const listenOn = { host: "127.0.0.1", port: 0 };
  return {
    listenOn,
    title: "fwd",
    health,
    metrics: createMetrics(),
    status,
    clock: systemClock,
    log: silentLog,
    ...change,
  };
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
    const asked = request(url, { headers: { host } }, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    });
    asked.on("error", reject).end();
  });
}

test("serveAdmin() shows the tables with every text escaped and forbids foreign scripts", async () => {
  await withServer(optionsOf(), async (url) => {
    const answer = await fetch(url);
    const page = await answer.text();
    assert.match(answer.headers.get("content-type") ?? "", /^text\/html/);
    assert.match(answer.headers.get("content-security-policy") ?? "", /default-src 'none'/);
    assert.ok(!page.includes("<script>alert"), page);
    assert.match(page, /&lt;script&gt;alert\(&quot;1&quot;\)/);
    assert.match(page, /<tr class="good"><td>0000:3b:02\.0<\/td><td>ready<\/td><\/tr>/);
    assert.match(page, /colspan="1">No client asked yet/);
    const json = (await (await fetch(`${url}/status.json`)).json()) as { tables: unknown[] };
    assert.equal(json.tables.length, 2);
  });
});

test("serveAdmin() answers ready only while nothing blocks, and says what does", async () => {
  const options = optionsOf();
  const svid = options.health.declare({ code: "no-svid", severity: "blocking" }, "Waiting for the SPIRE agent");
  await withServer(options, async (url) => {
    const waiting = await fetch(`${url}/readyz`);
    assert.deepEqual([waiting.status, await waiting.text()], [503, "no-svid: Waiting for the SPIRE agent\n"]);
    assert.equal((await fetch(`${url}/healthz`)).status, 200);
    assert.match(await (await fetch(url)).text(), /not ready.*no-svid/s);
    svid.clear();
    assert.equal((await fetch(`${url}/readyz`)).status, 200);
  });
});

test("serveAdmin() serves metrics, style and script, and refuses the rest", async () => {
  const options = optionsOf();
  options.metrics.counter({ name: "nsm_requests_total", help: "Requests" }).add({});
  await withServer(options, async (url) => {
    assert.match(await (await fetch(`${url}/metrics`)).text(), /^nsm_requests_total 1$/m);
    for (const name of ["page.css", "page.js", "main.html"]) assert.equal((await fetch(`${url}/${name}`)).status, 200);
    assert.equal((await fetch(`${url}/../etc/passwd`)).status, 404);
    assert.equal((await fetch(url, { method: "POST", body: "x" })).status, 405);
    assert.equal(await statusWithHost(url, "evil.example:9871"), 421);
    assert.equal(await statusWithHost(url, "localhost:9871"), 200);
  });
});

test("serveAdmin() answers 500 when the source fails, and stays up", async () => {
  const broken = {
    facts: () => [],
    tables: () => {
      throw new Error("gone");
    },
  };
  await withServer(optionsOf({ status: broken }), async (url) => {
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
