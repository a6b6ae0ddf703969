import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { create, type DescMethod, fromBinary, toBinary } from "@bufbuild/protobuf";
import * as grpc from "@grpc/grpc-js";
import { createTestCa } from "../../sandbox/identity/x509.ts";
import { testIdentity } from "../../test/scenes/tls-identity.ts";
import { within } from "../../test/scenes/until.ts";
import { systemClock } from "../async/index.ts";
import { type Connection, ConnectionSchema } from "../gen/connection_pb.ts";
import { NetworkService, NetworkServiceRequestSchema } from "../gen/networkservice_pb.ts";
import { NetworkServiceEndpointRegistry } from "../gen/registry_pb.ts";
import { silentLog } from "../telemetry/index.ts";
import { RpcClient } from "./client.ts";
import { methodPath, streamHandler, unaryHandler } from "./handler.ts";
import { serveRpc } from "./server.ts";
import { NotBegun, RpcError } from "./status.ts";

// grpc-js is an implementation that is not ours: both roles are held against it, with mutual TLS over a unix socket.
const ca = createTestCa("example.org");
const ours = testIdentity(ca, "spiffe://example.org/ours");
const theirs = ca.issue({ spiffeId: "spiffe://example.org/theirs" });
const { request: Request, close: Close } = NetworkService.method;
const { find: Find } = NetworkServiceEndpointRegistry.method;
const unicode = "nö — 100 %\n";

function socketPath(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "rpc-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, "a.sock");
}

/** Messages of the given method as grpc-js wants them. */
function definition<D extends DescMethod>(method: D) {
  return {
    path: methodPath(method),
    requestStream: false,
    responseStream: method.methodKind === "server_streaming",
    requestSerialize: (message: Parameters<typeof toBinary<D["input"]>>[1]) =>
      Buffer.from(toBinary(method.input, message)),
    requestDeserialize: (bytes: Buffer) => fromBinary(method.input, bytes),
    responseSerialize: (message: Parameters<typeof toBinary<D["output"]>>[1]) =>
      Buffer.from(toBinary(method.output, message)),
    responseDeserialize: (bytes: Buffer) => fromBinary(method.output, bytes),
  };
}

/** Longer than any window. */
const large = { bytes: 4_000_000, elements: 100 };

async function ourServer(t: TestContext): Promise<string> {
  const handlers = [
    unaryHandler(
      Request,
      async ({ connection }, call) => {
        call.setResponseMetadata("x-seen", (call.metadata.get("x-sent") ?? []).join("+"));
        return { id: connection?.id ?? "", payload: call.connection.peer?.spiffeId ?? "" };
      },
      large,
    ),
    unaryHandler(Close, async () => {
      throw new RpcError("PERMISSION_DENIED", unicode);
    }),
    streamHandler(Find, async function* (_request, call) {
      for (let i = 0; i < 200; i++) yield { networkServiceEndpoint: { name: String(i), url: "x".repeat(5000) } };
      await new Promise((resolve) => call.signal.addEventListener("abort", resolve));
    }),
  ];
  const path = socketPath(t);
  const limits = { maxMessageBytes: large.bytes };
  const url = `unix://${path}`;
  const server = await serveRpc({ url, tls: ours, handlers, limits, log: silentLog, clock: systemClock });
  t.after(() => server.stop(0));
  return path;
}

function theirClient(t: TestContext, path: string): grpc.Client {
  const [root, key, chain] = [ca.rootPem, theirs.keyPem, theirs.certPem].map((text) => Buffer.from(text));
  const credentials = grpc.credentials.createSsl(root, key, chain, { checkServerIdentity: () => undefined });
  const client = new grpc.Client(`unix:${path}`, credentials, { "grpc.keepalive_time_ms": 1000 });
  t.after(() => client.close());
  return client;
}

test("serveRpc() sends a client of grpc-js away to show a newer certificate, and it calls again by itself", async (t) => {
  const connections: unknown[] = [];
  const handler = unaryHandler(Request, async ({ connection }, call) => {
    connections.push(call.connection);
    if (call.connection.renew()) throw new NotBegun("come back");
    return { id: connection?.id ?? "" };
  });
  const path = socketPath(t);
  const common = { tls: ours, log: silentLog, clock: systemClock };
  const server = await serveRpc({ ...common, url: `unix://${path}`, handlers: [handler] });
  t.after(() => server.stop(0));
  const { path: method, requestSerialize, responseDeserialize } = definition(Request);
  const answered = new Promise<Connection>((resolve, reject) => {
    const message = create(NetworkServiceRequestSchema, { connection: { id: "again" } });
    const done = (error: Error | null, reply?: unknown) => (reply ? resolve(reply as Connection) : reject(error));
    theirClient(t, path).makeUnaryRequest(method, requestSerialize, responseDeserialize, message, done);
  });
  const answer = await within("the call is answered on a second connection", answered);
  assert.deepEqual([answer.id, connections.length, new Set(connections).size], ["again", 2, 2]);
});

test("serveRpc() answers unary calls of grpc-js with metadata, statuses and long messages", async (t) => {
  const client = theirClient(t, await ourServer(t));
  const { path, requestSerialize, responseDeserialize } = definition(Request);
  const metadata = new grpc.Metadata();
  metadata.add("x-sent", "1");
  metadata.add("x-sent", "2");
  const id = "é".repeat(1_000_000);
  const request = fromBinary(NetworkServiceRequestSchema, toBinary(NetworkServiceRequestSchema, longRequest(id)));
  const seen = Promise.withResolvers<unknown>();
  const answered = new Promise<Connection>((resolve, reject) => {
    const call = client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      metadata,
      (error, value) => (error ? reject(error) : resolve(value as Connection)),
    );
    call.on("metadata", (headers) => seen.resolve(headers.get("x-seen")));
  });
  const answer = await within("the long call is answered", answered);
  assert.deepEqual([answer.id.length, answer.payload], [id.length, "spiffe://example.org/theirs"]);
  assert.deepEqual(await within("the metadata comes", seen.promise), ["1+2"]);
  const close = definition(Close);
  const failed = new Promise<grpc.ServiceError | null>((resolve) => {
    const empty = fromBinary(ConnectionSchema, new Uint8Array());
    client.makeUnaryRequest(close.path, close.requestSerialize, close.responseDeserialize, empty, resolve);
  });
  const failure = await within("the refused call is answered", failed);
  assert.deepEqual([failure?.code, failure?.details], [grpc.status.PERMISSION_DENIED, unicode]);
});

function longRequest(id: string) {
  const empty = fromBinary(NetworkServiceRequestSchema, new Uint8Array());
  return { ...empty, connection: { ...fromBinary(ConnectionSchema, new Uint8Array()), id } };
}

test("serveRpc() streams to grpc-js until it cancels, or its deadline", async (t) => {
  const client = theirClient(t, await ourServer(t));
  const { path, requestSerialize, responseDeserialize } = definition(Find);
  const empty = fromBinary(Find.input, new Uint8Array());
  // On an open connection, so that all of the time is the stream's.
  await new Promise<void>((resolve, reject) =>
    client.waitForReady(Date.now() + 30_000, (error) => (error ? reject(error) : resolve())),
  );
  const start = (options: grpc.CallOptions) =>
    client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, empty, options);
  const endOf = (call: grpc.ClientReadableStream<unknown>) => {
    const ended = new Promise<grpc.ServiceError>((resolve) => call.on("error", resolve as (error: Error) => void));
    return within("the stream ends with an error", ended);
  };
  // Two calls, for theirs is a real clock: no time is long enough for all messages on every machine.
  const whole = start({});
  const failure = endOf(whole);
  const names: unknown[] = [];
  whole.on("data", ({ networkServiceEndpoint }: { networkServiceEndpoint?: { name: string } }) => {
    names.push(networkServiceEndpoint?.name);
    if (names.at(-1) === "199") whole.cancel();
  });
  assert.equal((await failure).code, grpc.status.CANCELLED);
  assert.deepEqual(
    names,
    Array.from({ length: 200 }, (_, index) => String(index)),
  );
  const late = start({ deadline: Date.now() + 100 });
  late.resume();
  assert.equal((await endOf(late)).code, grpc.status.DEADLINE_EXCEEDED);
});

async function theirServer(t: TestContext) {
  const server = new grpc.Server();
  const cancelled = Promise.withResolvers<void>();
  const chain = { private_key: Buffer.from(theirs.keyPem), cert_chain: Buffer.from(theirs.certPem) };
  const service = { request: definition(Request), close: definition(Close) };
  server.addService(service as unknown as grpc.ServiceDefinition, {
    request(
      call: grpc.ServerUnaryCall<ReturnType<typeof longRequest>, Connection>,
      done: grpc.sendUnaryData<Connection>,
    ) {
      const headers = new grpc.Metadata();
      headers.add("x-seen", String(call.metadata.get("x-sent")[0]));
      call.sendMetadata(headers);
      done(null, call.request.connection);
    },
    close(_call: unknown, done: grpc.sendUnaryData<Connection>) {
      done({ code: grpc.status.NOT_FOUND, details: unicode });
    },
  });
  const streaming = { find: definition(Find) } as unknown as grpc.ServiceDefinition;
  server.addService(streaming, {
    find(call: grpc.ServerWritableStream<unknown, unknown>) {
      call.on("cancelled", () => cancelled.resolve());
      for (let i = 0; i < 200; i++) call.write(fromBinary(Find.output, new Uint8Array()));
    },
  });
  const path = socketPath(t);
  const credentials = grpc.ServerCredentials.createSsl(Buffer.from(ca.rootPem), [chain], true);
  await new Promise<void>((resolve, reject) =>
    server.bindAsync(`unix:${path}`, credentials, (error) => (error ? reject(error) : resolve())),
  );
  t.after(() => server.forceShutdown());
  return { url: `unix://${path}`, cancelled: cancelled.promise };
}

test("RpcClient calls grpc-js: messages, metadata, statuses, streams and cancellation", async (t) => {
  const { url, cancelled } = await theirServer(t);
  const options = { log: silentLog, clock: systemClock, dialTimeoutMs: 60_000, idleMs: 60_000 };
  const client = new RpcClient({
    ...options,
    tls: ours,
    limits: { maxMessageBytes: large.bytes },
    answerLimit: () => large,
  });
  t.after(() => client.close());
  const request = { connection: { id: "é".repeat(1_000_000) } };
  const answer = await client.call(url, Request, request, { metadata: { "x-sent": "1" }, timeoutMs: 60_000 });
  assert.equal(answer.response.id, request.connection.id);
  assert.deepEqual(answer.metadata.get("x-seen"), ["1"]);
  assert.equal(answer.connection.peer?.spiffeId, "spiffe://example.org/theirs");
  await assert.rejects(client.call(url, Close, {}), { code: "NOT_FOUND", message: unicode });
  let count = 0;
  for await (const _ of client.stream(url, Find, {})) if (++count === 200) break;
  await within("the server learns of the cancellation", cancelled);
  assert.equal(count, 200);
});
