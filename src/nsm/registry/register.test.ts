import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { create, type DescMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { NetworkServiceEndpointResponseSchema, NetworkServiceEndpointSchema } from "../../gen/registry_pb.ts";
import { PolicyError } from "../../identity/index.ts";
import { RpcError } from "../../rpc/index.ts";
import { recordingLog } from "../../telemetry/recording-log.ts";
import type { Caller, CallOptions } from "../dependencies.ts";
import { HandClock, PaperFd, peerNamed, settled } from "../testing/fakes.ts";
import { PaperStream } from "../testing/fakes-outside.ts";
import { Registration } from "./register.ts";

const made: { readonly clock: HandClock; readonly registry: PaperRegistry }[] = [];

// Each test has stopped its registrations. What they took is given back then, and the registry knows of none.
afterEach(() => {
  for (const { clock, registry } of made.splice(0)) {
    assert.equal(clock.timerCount, 0, "timers");
    assert.ok(
      registry.watches.every(({ isOver }) => isOver),
      "a watch goes on",
    );
    assert.equal(registry.knowsUs, false, "the registry still has our entry");
  }
});

test("Registration registers, and renews at two thirds of the time granted", async () => {
  const { clock, registration, registry } = setUp();
  registration.start();
  await settled();
  assert.deepEqual(registration.state.value, { kind: "registered", managerSpiffeId: "spiffe://test/nsmgr-a" });
  assert.equal(registration.spiffeId, "spiffe://test/nsmgr-a");
  assert.equal(registry.calls[0]?.entry.url, "inode://8/99");
  assert.equal(registry.calls[0]?.options.fds?.length, 1);
  assert.equal(registry.calls[0]?.options.metadata?.["path"], '{"Index":0,"PathSegments":null}');
  await clock.pass(39_900);
  assert.equal(registry.calls.length, 1);
  await clock.pass(200);
  assert.equal(registry.calls.length, 2);
  assert.equal(
    registry.calls[1]?.options.metadata?.["path"],
    '{"Index":0,"PathSegments":[{"token":"a"},{"token":"b"}]}',
  );
  await registration.stop();
});

test("Registration bounds its calls, so that the manager keeps an entry until it is renewed", async () => {
  for (const [tokenLifetimeMs, timeoutMs] of [
    [600_000, 15_000],
    [30_000, 5_000],
  ] as const) {
    const { registration, registry } = setUp(undefined, tokenLifetimeMs);
    registration.start();
    await settled();
    assert.equal(registry.calls[0]?.options.timeoutMs, timeoutMs);
    await registration.stop();
  }
});

test("Registration sends its own URL again, whatever the registry made of it", async () => {
  const { clock, registration, registry } = setUp();
  registry.reply.url = "unix:///somewhere/else";
  registration.start();
  await clock.pass(50_000);
  assert.equal(registry.calls[1]?.entry.url, "inode://8/99");
  await registration.stop();
});

test("Registration does not run hot when its expiry lies in the past", async () => {
  const { clock, registration, registry } = setUp();
  registry.lifetimeMs = -60_000;
  registration.start();
  await clock.pass(20_000);
  assert.ok(registry.calls.length <= 11, `${registry.calls.length} calls`);
  await registration.stop();
});

test("Registration registers anew when the manager is lost, and learns who the next one is", async () => {
  const { clock, registration, registry } = setUp();
  registration.start();
  await settled();
  registry.peer = peerNamed("nsmgr-b");
  registry.watches[0]?.end(new RpcError("UNAVAILABLE", "connection lost"));
  await clock.pass(1_000);
  assert.equal(registry.calls.length, 2);
  assert.equal(registration.spiffeId, "spiffe://test/nsmgr-b");
  await registration.stop();
});

test("Registration registers anew when the registry has dropped it", async () => {
  const { clock, registration, registry } = setUp();
  registration.start();
  await settled();
  const dropped = { deleted: true, networkServiceEndpoint: { name: "fwd-a" } };
  registry.watches[0]?.push(create(NetworkServiceEndpointResponseSchema, dropped));
  await clock.pass(1_000);
  assert.equal(registry.calls.length, 2);
  await registration.stop();
});

test("Registration is content with a registry that offers no watch", async () => {
  const { clock, registration, registry } = setUp();
  registration.start();
  await settled();
  registry.watches[0]?.end(new RpcError("UNIMPLEMENTED", "no watch"));
  await clock.pass(10_000);
  assert.equal(registry.calls.length, 1);
  await clock.pass(31_000);
  assert.equal(registry.calls.length, 2);
  await registration.stop();
});

test("Registration tries a lost manager soon, a refusal rarely, and tells each problem once", async () => {
  const { clock, log, registration, registry } = setUp();
  registry.failure = new RpcError("UNAVAILABLE", "no socket");
  registration.start();
  await clock.pass(3_000);
  const tries = registry.calls.length;
  assert.ok(tries >= 4, `${tries} tries`);
  assert.deepEqual([log.of("registration-awaited").length, log.of("registration-lost").length], [1, 0]);
  registry.failure = new RpcError("PERMISSION_DENIED", "not you");
  await clock.pass(120_000);
  assert.equal(log.of("registration-refused").length, 1);
  assert.ok(registry.calls.length - tries < 15);
  assert.deepEqual(registration.state.value, { kind: "trying", problem: "not you", isPermanent: true });
  registry.failure = undefined;
  await clock.pass(61_000);
  assert.equal(registration.state.value?.kind, "registered");
  await registration.stop();
});

test("Registration.stop() takes us out of the registry, and leaves no timer", async () => {
  const { clock, registration, registry } = setUp();
  registration.start();
  await settled();
  await registration.stop();
  assert.equal(registry.calls.at(-1)?.method, "Unregister");
  assert.equal(clock.timerCount, 0);
  assert.ok(registry.watches.every((watch) => watch.isCancelled));
});

test("Registration.stop() takes us out of the registry also while the manager's watch is broken", async () => {
  const { registration, registry } = setUp();
  registration.start();
  await settled();
  registry.watches[0]?.end(new RpcError("UNAVAILABLE", "connection lost"));
  await settled();
  assert.equal(registration.state.value?.kind, "trying");
  await registration.stop();
  assert.equal(registry.calls.at(-1)?.method, "Unregister");
});

test("Registration.stop() of one that never registered asks nobody", async () => {
  const { registration, registry } = setUp();
  registry.failure = new RpcError("UNAVAILABLE", "no socket");
  registration.start();
  await settled();
  await registration.stop();
  assert.ok(registry.calls.every(({ method }) => method === "Register"));
});

test("Registration whose first answer a policy refuses is taken out again", async () => {
  const { registration, registry } = setUp(() => {
    throw new Error("Refused by next_token_signed");
  });
  registration.start();
  await settled();
  assert.deepEqual(
    registry.calls.map(({ method }) => method),
    ["Register", "Unregister"],
  );
  assert.equal(registration.spiffeId, undefined);
  await registration.stop();
});

for (const hasRotated of [true, false]) {
  test(`Registration ${hasRotated ? "asks once more on a new connection" : "takes it as refused"} when the manager signs with another key`, async () => {
    const fault = { kind: "bad-signature", segment: 1, subject: "m", signer: "m" } as const;
    let failures = hasRotated ? 1 : 2;
    const { registration, registry, log } = setUp(() => {
      if (failures-- > 0) throw new PolicyError("policies/client/next_token_signed.rego", fault);
    });
    registry.renew = () => hasRotated;
    registration.start();
    await settled();
    const methods = registry.calls.map(({ method }) => method);
    assert.deepEqual(methods, hasRotated ? ["Register", "Register"] : ["Register", "Unregister"]);
    assert.equal(registration.state.value?.kind, hasRotated ? "registered" : "trying");
    assert.equal(log.of("registration-refused").length, hasRotated ? 0 : 1);
    await registration.stop();
  });
}

test("Registration asks once more, and not at once for ever, where each new connection shows another key", async () => {
  const fault = { kind: "bad-signature", segment: 1, subject: "m", signer: "m" } as const;
  const { registration, registry } = setUp(() => {
    throw new PolicyError("policies/client/next_token_signed.rego", fault);
  });
  let renewed = 0;
  registry.renew = () => {
    renewed++;
    return renewed < 100;
  };
  registration.start();
  await settled();
  assert.deepEqual(
    registry.calls.map(({ method }) => method),
    ["Register", "Register", "Unregister"],
  );
  assert.equal(renewed, 1);
  await registration.stop();
});

function setUp(checkAnswer?: () => void, tokenLifetimeMs = 600_000) {
  const clock = new HandClock();
  const log = recordingLog();
  const registry = new PaperRegistry(clock);
  const registration = new Registration({
    name: "fwd-a",
    networkService: "forwarder",
    labels: { p2p: "true" },
    managerTarget: "unix:///nsmgr",
    socket: { fd: new PaperFd(), id: { dev: 8n, ino: 99n } },
    tokenLifetimeMs,
    caller: registry,
    ...(checkAnswer ? { checkAnswer } : {}),
    clock,
    log,
    random: () => 0,
  });
  made.push({ clock, registry });
  return { clock, log, registry, registration };
}

class PaperRegistry implements Caller {
  readonly calls: {
    method: string;
    entry: MessageInitShape<typeof NetworkServiceEndpointSchema>;
    options: CallOptions;
  }[] = [];
  readonly watches: PaperStream<unknown>[] = [];
  reply: MessageInitShape<typeof NetworkServiceEndpointSchema> & { url?: string } = {};
  lifetimeMs = 60_000;
  failure: RpcError | undefined;
  peer = peerNamed("nsmgr-a");
  renew = () => false;
  /** Our entry was registered, and has not been taken out since. */
  knowsUs = false;
  readonly #clock: HandClock;

  constructor(clock: HandClock) {
    this.#clock = clock;
  }

  async call<I extends DescMessage, O extends DescMessage>(
    _target: string,
    method: { readonly name: string; readonly input: I; readonly output: O },
    request: MessageInitShape<I>,
    options: CallOptions = {},
  ) {
    this.calls.push({ method: method.name, entry: request as never, options });
    // Who takes the entry out cannot do more than say so.
    this.knowsUs = method.name === "Unregister" ? false : this.knowsUs || !this.failure;
    if (this.failure) throw this.failure;
    const expirationTime = timestampFromMs(this.#clock.now() + this.lifetimeMs);
    const response = create(NetworkServiceEndpointSchema, { ...this.reply, expirationTime } as never);
    const metadata = new Map([["path", ['{"Index":0,"PathSegments":[{"token":"a"},{"token":"b"}]}']]]);
    return {
      response: response as unknown as MessageShape<O>,
      metadata,
      connection: { peer: this.peer, fds: undefined, renew: this.renew },
    };
  }

  stream<O extends DescMessage>() {
    const stream = new PaperStream<MessageShape<O>>({ peer: this.peer, fds: undefined });
    this.watches.push(stream as unknown as PaperStream<unknown>);
    return stream;
  }
}
