import assert from "node:assert/strict";
import { createServer } from "node:http";
import test, { type TestContext } from "node:test";
import { fetchView } from "./fetch-view.ts";

/** A server on this loopback address that answers so. */
async function answering(t: TestContext, host: string, code: number, body: string): Promise<number> {
  const server = createServer((_request, response) => response.writeHead(code).end(body));
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  t.after(() => server.close());
  return (server.address() as { port: number }).port;
}

const { signal } = new AbortController();
const view = { name: "fwd", pfs: [], connections: [], resources: [], conditions: [], troubles: [] };

test("fetchView() takes nothing for a view in which a list is missing that is drawn", async (t) => {
  const { troubles: _, ...without } = view;
  for (const [body, is] of [
    [JSON.stringify(view), true],
    [JSON.stringify(without), false],
    [JSON.stringify({ ...view, name: 7 }), false],
    ["null", false],
    ["<html>", false],
  ] as const) {
    const fetching = fetchView(`http://127.0.0.1:${await answering(t, "127.0.0.1", 200, body)}`, signal);
    if (is) assert.deepEqual(await fetching, view);
    else await assert.rejects(fetching, /what answers there is no forwarder of this version/, body);
  }
});

test("fetchView() says the first line of what refuses it", async (t) => {
  const port = await answering(t, "127.0.0.1", 503, "Too many watch\nmore");
  await assert.rejects(fetchView(`http://127.0.0.1:${port}`, signal), /it answers 503 Too many watch$/);
});

test("fetchView() at localhost goes to the other address only where no process listens at the first", async (t) => {
  const broken = createServer((request) => void request.socket.destroy());
  await new Promise<void>((resolve) => broken.listen(0, "127.0.0.1", resolve));
  t.after(() => broken.close());
  const { port } = broken.address() as { port: number };
  await assert.rejects(fetchView(`http://localhost:${port}`, signal), (error: Error) => {
    return /Cannot reach a forwarder/.test(error.message) && !/no process listens/.test(error.message);
  });
  const free = await answering(t, "127.0.0.1", 200, JSON.stringify(view));
  assert.deepEqual(await fetchView(`http://localhost:${free}`, signal), view);
});
