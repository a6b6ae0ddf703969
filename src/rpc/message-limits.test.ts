import assert from "node:assert/strict";
import { type ClientHttp2Session, connect } from "node:http2";
import { type TestContext, test } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { systemClock } from "../async/index.ts";
import { ConnectionSchema } from "../gen/connection_pb.ts";
import { NetworkService, NetworkServiceRequestSchema } from "../gen/networkservice_pb.ts";
import { silentLog } from "../telemetry/index.ts";
import { RpcClient } from "./client.ts";
import { decodeMessage, type RpcHandler, unaryHandler } from "./handler.ts";
import { RpcHealth } from "./health.ts";
import { defaultMessageLimit } from "./message-limits.ts";
import { type ServeOptions, serveRpc } from "./server.ts";
import { RpcError } from "./status.ts";

const { request: Request } = NetworkService.method;
const PATH = "/networkservice.NetworkService/Request";
const limit = { bytes: 1000, elements: 20 };

async function serve(t: TestContext, handlers: readonly RpcHandler[], options: Partial<ServeOptions> = {}) {
  const common = { url: "tcp://127.0.0.1:0", log: silentLog, clock: systemClock };
  const server = await serveRpc({ ...common, handlers, ...options });
  t.after(() => server.stop(0));
  return server;
}

function connectPlainly(t: TestContext, url: string): ClientHttp2Session {
  const session = connect(url.replace("tcp:", "http:")).on("error", () => {});
  t.after(() => session.destroy());
  return session;
}

interface Sent {
  readonly bytes: Buffer;
  /** Without it the request is begun and never ended. */
  readonly isWhole?: boolean;
  readonly path?: string;
}

/** The status of a call, as grpc-status and text. */
function call(session: ClientHttp2Session, { bytes, isWhole = true, path = PATH }: Sent): Promise<[string, string]> {
  const stream = session.request({ ":method": "POST", ":path": path, "content-type": "application/grpc" });
  const answer = new Promise<[string, string]>((resolve) => {
    const seen = (fields: Record<string, unknown>) => {
      if (fields["grpc-status"] !== undefined)
        resolve([String(fields["grpc-status"]), decodeURIComponent(String(fields["grpc-message"] ?? ""))]);
    };
    stream.on("response", seen).on("trailers", seen);
  });
  stream.on("error", () => {}).resume();
  if (isWhole) stream.end(bytes);
  else stream.write(bytes);
  return answer;
}

function frame(message: Uint8Array, announced = message.length): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(announced, 1);
  return Buffer.concat([prefix, message]);
}

/** A Request of so many bytes: field 1, its length, and in it the id. */
function ofBytes(bytes: number): Uint8Array {
  const message = toBinary(
    NetworkServiceRequestSchema,
    create(NetworkServiceRequestSchema, { connection: { id: "x".repeat(bytes - 6) } }),
  );
  assert.equal(message.length, bytes);
  return message;
}

const echo = unaryHandler(Request, async ({ connection }) => ({ id: connection?.id ?? "" }), limit);

test("serveRpc() takes a request of as many bytes as its method allows, and none of one more", async (t) => {
  const { url } = await serve(t, [echo]);
  const session = connectPlainly(t, url);
  assert.deepEqual(await call(session, { bytes: frame(ofBytes(1000)) }), ["0", ""]);
  assert.deepEqual(await call(session, { bytes: frame(ofBytes(1001)) }), [
    "8",
    `Cannot take a request of ${PATH} of 1001 bytes: the limit is 1000 bytes`,
  ]);
});

test("serveRpc() refuses by what a message announces, before it has come", async (t) => {
  const { url } = await serve(t, [echo]);
  const announced = { bytes: frame(Buffer.alloc(0), 4_000_000), isWhole: false };
  const [status, text] = await call(connectPlainly(t, url), announced);
  assert.deepEqual([status, /of 4000000 bytes: the limit is 1000 bytes/.test(text)], ["8", true]);
});

test("serveRpc() takes a request of as many elements as its method allows, and none of one more", async (t) => {
  const { url } = await serve(t, [echo]);
  const session = connectPlainly(t, url);
  const preferences = (count: number) => frame(Buffer.from("1200".repeat(count), "hex"));
  assert.deepEqual(await call(session, { bytes: preferences(20) }), ["0", ""]);
  assert.deepEqual(await call(session, { bytes: preferences(21) }), [
    "8",
    "Cannot take a networkservice.NetworkServiceRequest of 42 bytes: it has more than 20 elements; send less at once",
  ]);
});

test("serveRpc() takes a probe with the name of a service, and none of more than 1 KB or 16 fields", async (t) => {
  const { url } = await serve(t, [], { health: new RpcHealth() });
  const session = connectPlainly(t, url);
  const probe = (bytes: Buffer) => call(session, { bytes: frame(bytes), path: "/grpc.health.v1.Health/Check" });
  assert.equal((await probe(Buffer.alloc(0)))[0], "0");
  assert.equal((await probe(Buffer.from("f80101".repeat(16), "hex")))[0], "0");
  assert.equal((await probe(Buffer.from("f80101".repeat(17), "hex")))[0], "8");
  assert.equal((await probe(Buffer.from(`0a${"00".repeat(1024)}`, "hex")))[0], "8");
});

test("serveRpc() holds so many bytes of half-sent requests on a connection, and gives them back", async (t) => {
  const { url } = await serve(t, [{ ...echo, limit: { bytes: 1000, elements: 20 } }], {
    limits: { maxMessageBytes: 1000 },
  });
  const session = connectPlainly(t, url);
  const half = () => call(session, { bytes: frame(Buffer.alloc(885), 1000), isWhole: false });
  const held = [half(), half(), half(), half()];
  const [status, text] = await half();
  assert.deepEqual([status, text], ["8", "Cannot take so much at once: send the requests one after the other"]);
  session.destroy();
  assert.deepEqual(await call(connectPlainly(t, url), { bytes: frame(ofBytes(1000)) }), ["0", ""]);
  void held;
});

function caller(t: TestContext, answerLimit = limit): RpcClient {
  const client = new RpcClient({
    log: silentLog,
    clock: systemClock,
    dialTimeoutMs: 60_000,
    idleMs: 1000,
    answerLimit: () => answerLimit,
  });
  t.after(() => client.close());
  return client;
}

test("RpcClient.call() takes an answer of as many bytes and elements as it allows, and none of one more", async (t) => {
  const answers = unaryHandler(Request, async ({ connection }) => ({
    id: connection?.id ?? "",
    labels: Object.fromEntries(Array.from({ length: Number(connection?.payload ?? 0) }, (_, at) => [`${at}`, ""])),
  }));
  const { url } = await serve(t, [answers]);
  const client = caller(t);
  const send = (bytes: number) => client.call(url, Request, { connection: { id: "x".repeat(bytes - 3) } });
  assert.equal((await send(1000)).response.id.length, 997);
  const text = `Cannot take an answer of ${PATH} of 1001 bytes: the limit is 1000 bytes`;
  await assert.rejects(send(1001), { code: "RESOURCE_EXHAUSTED", message: text });
  const labels = (payload: string) => client.call(url, Request, { connection: { payload } });
  assert.equal(Object.keys((await labels("6")).response.labels).length, 6); // each has a key and a value
  await assert.rejects(labels("7"), { code: "RESOURCE_EXHAUSTED", message: /more than 20 elements/ });
});

test("RpcClient.call() ends a call whose answer has a second message, however many would follow", async (t) => {
  let sent = 0;
  const endless: RpcHandler = {
    path: PATH,
    kind: "stream",
    limit,
    async *run(_request, { signal }) {
      while (!signal.aborted) {
        sent += 1;
        yield new Uint8Array(0);
      }
    },
  };
  const { url } = await serve(t, [endless]);
  await assert.rejects(caller(t).call(url, Request, {}), { code: "INTERNAL", message: /more than one message/ });
  assert.ok(sent < 100_000);
});

test("decodeMessage() keeps no field that the schema does not know", () => {
  const bytes = Buffer.from(`0a0161${"f80101".repeat(10)}`, "hex"); // id, and ten times field 31
  const message = decodeMessage(ConnectionSchema, bytes, defaultMessageLimit);
  assert.deepEqual([message.id, message.$unknown], ["a", undefined]);
  assert.throws(() => decodeMessage(ConnectionSchema, bytes, { bytes: 100, elements: 10 }), RpcError);
});
