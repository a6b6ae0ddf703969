import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { create, type DescMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { within } from "../../../test/scenes/until.ts";
import { NetworkServiceEndpointResponseSchema, NetworkServiceEndpointSchema } from "../../gen/registry_pb.ts";
import { PolicyError } from "../../identity/index.ts";
import { type CallOptions, RpcError, type RpcStream } from "../../rpc/index.ts";
import { recordingLog } from "../../telemetry/recording-log.ts";
import type { Caller } from "../peers.ts";
import { connectionWith, HandClock, PaperFd, peerNamed, settled } from "../testing/fakes.ts";
import { PaperStream } from "../testing/fakes-outside.ts";
import { Registration, type RegistrationOptions } from "./register.ts";

const made: { readonly clock: HandClock; readonly registry: PaperRegistry }[] = [];

// Each test has stopped its registrations. What they took is given back then, and the registry knows of none.
afterEach(() => {
  for (const { clock, registry } of made.splice(0)) {
    assert.equal(clock.timerCount, 0, "timers");
    assert.ok(
      registry.watches.every(({ isOver }) => isOver),
      "a watch continues",
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

test("Registration says the same of us at each call, and watches what the manager knows of us", async () => {
  const { clock, registration, registry } = setUp();
  registration.start();
  registration.start();
  await clock.pass(41_000);
  await registration.stop();
  assert.deepEqual(
    registry.calls.map(({ method }) => method),
    ["Register", "Register", "Unregister"],
  );
  for (const { entry } of registry.calls) {
    assert.deepEqual(entry, {
      name: "fwd-a",
      networkServiceNames: ["sriovns", "forwarder"],
      networkServiceLabels: { sriovns: { labels: { p2p: "true" } }, forwarder: { labels: { p2p: "true" } } },
      url: "inode://8/99",
    });
  }
  const last = registry.calls.at(-1)?.options;
  assert.deepEqual([last?.timeoutMs, last?.fds?.length], [2_000, 1]);
  assert.equal(last?.metadata?.["path"], '{"Index":0,"PathSegments":[{"token":"a"},{"token":"b"}]}');
  assert.deepEqual(registry.queries, Array(2).fill({ networkServiceEndpoint: { name: "fwd-a" }, watch: true }));
});

test("Registration of a server that can be dialled sends its URL and no descriptor", async () => {
  const { registration, registry } = setUp(undefined, 600_000, { socket: { url: "tcp://10.0.0.1:5001" } });
  registration.start();
  await settled();
  assert.equal(registry.calls[0]?.entry.url, "tcp://10.0.0.1:5001");
  assert.equal(registry.calls[0]?.options.fds, undefined);
  await registration.stop();
});

test("Registration renews up to a tenth earlier than at two thirds", async () => {
  const { clock, registration, registry } = setUp(undefined, 600_000, { random: () => 0.5 });
  registration.start();
  await clock.pass(37_900);
  assert.equal(registry.calls.length, 1);
  await clock.pass(200);
  assert.equal(registry.calls.length, 2);
  await registration.stop();
});

test("Registration that never expires is not renewed", async () => {
  const { clock, registration, registry } = setUp();
  registry.lifetimeMs = undefined;
  registration.start();
  await clock.pass(86_400_000);
  assert.equal(registry.calls.length, 1);
  await registration.stop();
});

test("Registration keeps the path that it has where an answer brings none", async () => {
  const { clock, registration, registry } = setUp();
  registration.start();
  await settled();
  registry.path = undefined;
  await clock.pass(81_000);
  assert.equal(
    registry.calls[2]?.options.metadata?.["path"],
    '{"Index":0,"PathSegments":[{"token":"a"},{"token":"b"}]}',
  );
  await registration.stop();
});

test("Registration logs that it is registered when that is new", async () => {
  const { clock, log, registration, registry } = setUp();
  registration.start();
  await clock.pass(50_000);
  assert.equal(log.of("registered").length, 1, "a renewal is no news");
  registry.watches.at(-1)?.end(new RpcError("UNAVAILABLE", "connection lost"));
  await clock.pass(1_000);
  assert.deepEqual([log.of("registration-lost").length, log.of("registration-awaited").length], [1, 0]);
  assert.equal(log.of("registered").length, 2);
  registry.peer = peerNamed("nsmgr-b");
  await clock.pass(50_000);
  assert.equal(log.of("registered").at(-1)?.["manager"], "spiffe://test/nsmgr-b");
  assert.equal(log.of("registered").length, 3);
  await registration.stop();
});

test("Registration registers again when the manager ends its watch", async () => {
  const { clock, registration, registry } = setUp();
  registration.start();
  await settled();
  registry.watches[0]?.end();
  await clock.pass(1_000);
  assert.equal(registry.calls.length, 2);
  await registration.stop();
});

test("Registration is not moved by what the watch says of others, or by what is registered", async () => {
  const { clock, registration, registry } = setUp();
  registration.start();
  await settled();
  for (const [name, deleted] of [
    ["fwd-b", true],
    ["fwd-a", false],
  ] as const) {
    const networkServiceEndpoint = { name };
    registry.watches[0]?.push(create(NetworkServiceEndpointResponseSchema, { deleted, networkServiceEndpoint }));
  }
  await clock.pass(1_000);
  assert.equal(registry.calls.length, 1);
  await registration.stop();
});

for (const [code, fewMs, manyMs] of [
  ["UNAVAILABLE", 250, 30_000],
  ["PERMISSION_DENIED", 5_100, 300_000],
] as const) {
  test(`Registration begins with short pauses again after a success, when ${code} comes again`, async () => {
    const { clock, registration, registry } = setUp();
    registry.failure = new RpcError(code, "no");
    registration.start();
    await clock.pass(manyMs);
    registry.failure = undefined;
    await clock.pass(60_000);
    assert.equal(registration.state.value?.kind, "registered");
    registry.failure = new RpcError(code, "no");
    registry.watches.at(-1)?.end(registry.failure);
    await settled();
    const before = registry.calls.length;
    await clock.pass(fewMs);
    assert.equal(registry.calls.length, before + 1);
    await registration.stop();
  });
}

test("Registration keeps its entry where a policy refuses a renewal only", async () => {
  let checks = 0;
  let renewed = 0;
  const { clock, registration, registry, log } = setUp(() => {
    checks += 1;
    if (checks > 1) throw new Error("Refused by tokens_expired");
  });
  registry.renew = () => {
    renewed += 1;
    return true;
  };
  registration.start();
  await clock.pass(41_000);
  assert.deepEqual(
    registry.calls.map(({ method }) => method),
    ["Register", "Register"],
  );
  assert.deepEqual([checks, renewed, log.of("registration-refused").length], [2, 0, 1]);
  await registration.stop();
});

for (const [says, isAnswered] of [
  ["is answered all the same", true],
  ["is given up", false],
] as const) {
  test(`Registration.stop() during the first call, which ${says}, takes out what the manager may know`, async () => {
    const { registration, registry } = setUp();
    const answer = Promise.withResolvers<void>();
    registry.answered = isAnswered ? answer.promise : undefined;
    registry.isSlow = true;
    registration.start();
    await settled();
    const stopped = registration.stop();
    await settled();
    if (isAnswered) {
      assert.equal(registry.calls.length, 1, "the call is over first");
      answer.resolve();
    }
    await stopped;
    assert.deepEqual(
      registry.calls.map(({ method }) => method),
      ["Register", "Unregister"],
    );
  });
}

test("Registration.stop() ends, and logs it, where the manager cannot be notified", async () => {
  const { registration, registry, log } = setUp();
  registration.start();
  await settled();
  registry.failure = new RpcError("UNAVAILABLE", "connection lost");
  await registration.stop();
  assert.equal(log.of("not-unregistered").length, 1);
});

test("Registration bounds its calls, so that the manager keeps an entry until it is renewed", async () => {
  for (const [tokenLifetimeMs, timeoutMs] of [
    [600_000, 10_000],
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
  await within("20 s pass, and not call after call at one moment", clock.pass(20_000));
  assert.ok(registry.calls.length <= 11, `${registry.calls.length} calls`);
  await registration.stop();
});

test("Registration registers again when the manager is lost, and learns who the next one is", async () => {
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

test("Registration registers again when the registry has dropped it", async () => {
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

test("Registration of an earlier name says once that it is refused, as is to be expected, and is no error", async () => {
  const { clock, log, registration, registry } = setUp(undefined, 600_000, { isEarlierName: true });
  registry.failure = new RpcError("PERMISSION_DENIED", "not you");
  registration.start();
  await clock.pass(70_000);
  registry.failure = new RpcError("UNAVAILABLE", "no socket");
  await clock.pass(61_000);
  assert.deepEqual(
    log.events.map(({ level, event }) => `${level} ${event}`),
    ["info earlier-name-not-registered"],
  );
  registry.failure = undefined;
  await clock.pass(61_000);
  assert.equal(log.of("earlier-name-registered").length, 1);
  await registration.stop();
});

test("Registration tries a lost manager soon, a refusal rarely, and reports each problem once", async () => {
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

test("Registration is lost once: what follows until it is there again is awaited", async () => {
  const { clock, log, registration, registry } = setUp();
  registration.start();
  await settled();
  registry.failure = new RpcError("UNAVAILABLE", "no socket");
  registry.watches[0]?.end(new RpcError("UNAVAILABLE", "connection lost"));
  await clock.pass(10_000);
  const problems = (event: string) => log.of(event).map(({ error }) => error);
  assert.deepEqual(problems("registration-lost"), ["connection lost"]);
  assert.deepEqual(problems("registration-awaited"), ["no socket"]);
  await registration.stop();
});

test("Registration that was refused is tried again as soon as we have another certificate", async () => {
  let renew = () => {};
  let stopped = 0;
  const onIdentity = (listener: () => void) => {
    renew = listener;
    return () => stopped++;
  };
  const { clock, registration, registry } = setUp(undefined, 600_000, { onIdentity });
  registry.failure = new RpcError("PERMISSION_DENIED", "not you");
  registration.start();
  await clock.pass(300_000);
  const before = registry.calls.length;
  renew();
  await settled();
  assert.equal(registry.calls.length, before + 1);
  await clock.pass(5_100);
  assert.equal(registry.calls.length, before + 2, "the pauses are short again");
  registry.failure = undefined;
  renew();
  await settled();
  assert.equal(registration.state.value?.kind, "registered");
  await registration.stop();
  assert.equal(stopped, 1);
});

test("Registration is tried again at once where another certificate came while it was refused", async () => {
  let renew = () => {};
  const onIdentity = (listener: () => void) => {
    renew = listener;
    return () => {};
  };
  const { registration, registry } = setUp(undefined, 600_000, { onIdentity });
  const answer = Promise.withResolvers<void>();
  registry.answered = answer.promise;
  registry.isSlow = true;
  registry.failure = new RpcError("PERMISSION_DENIED", "not you");
  registration.start();
  await settled();
  renew();
  answer.resolve();
  await settled();
  assert.equal(registry.calls.length, 2);
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

test("Registration.stop() of one that never registered makes no call", async () => {
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
  test(`Registration ${hasRotated ? "tries again on a new connection" : "takes it as refused"} when the manager signs with another key`, async () => {
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

test("Registration registers once more, and not at once for ever, where each new connection shows another key", async () => {
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

function setUp(checkAnswer?: () => void, tokenLifetimeMs = 600_000, more: Partial<RegistrationOptions> = {}) {
  const clock = new HandClock();
  const log = recordingLog();
  const registry = new PaperRegistry(clock);
  const registration = new Registration({
    name: "fwd-a",
    networkServices: ["sriovns", "forwarder"],
    labels: { p2p: "true" },
    managerTarget: "unix:///nsmgr",
    socket: { fd: new PaperFd(), id: { dev: 8n, ino: 99n } },
    tokenLifetimeMs,
    caller: registry,
    ...(checkAnswer ? { checkAnswer } : {}),
    clock,
    log,
    random: () => 0,
    ...more,
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
  lifetimeMs: number | undefined = 60_000;
  path: string | undefined = '{"Index":0,"PathSegments":[{"token":"a"},{"token":"b"}]}';
  /** Register is answered when this has resolved, or is never answered. */
  answered: Promise<void> | undefined;
  isSlow = false;
  readonly queries: unknown[] = [];
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
    if (this.isSlow && method.name === "Register") await (this.answered ?? aborted(options.signal));
    if (this.failure) throw this.failure;
    const ends = this.lifetimeMs === undefined ? {} : { expirationTime: this.#ending(this.lifetimeMs) };
    const response = create(NetworkServiceEndpointSchema, { ...this.reply, ...ends } as never);
    const metadata = new Map(this.path === undefined ? [] : [["path", [this.path]]]);
    return {
      response: response as unknown as MessageShape<O>,
      metadata,
      connection: connectionWith(this.peer, { renew: this.renew }),
    };
  }

  #ending(lifetimeMs: number) {
    return timestampFromMs(this.#clock.now() + lifetimeMs);
  }

  stream<O extends DescMessage>(_target: string, _method: unknown, query: unknown) {
    this.queries.push(query);
    const stream = new PaperStream<MessageShape<O>>({ peer: this.peer, fds: undefined });
    this.watches.push(stream as unknown as PaperStream<unknown>);
    return stream as unknown as RpcStream<MessageShape<O>>;
  }
}

function aborted(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal?.addEventListener("abort", () => reject(new RpcError("CANCELLED", "stopped")), { once: true });
  });
}
