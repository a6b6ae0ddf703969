// Registrations with a manager that grants and drops as the SDK's own do, at any ratio of token lives, on a virtual clock.
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type DescMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Clock } from "../../async/index.ts";
import { seededFractions } from "../../async/testing/seeded-random.ts";
import { NetworkServiceEndpointResponseSchema, NetworkServiceEndpointSchema } from "../../gen/registry_pb.ts";
import { type CallOptions, RpcError, type RpcStream } from "../../rpc/index.ts";
import { recordingLog } from "../../telemetry/recording-log.ts";
import type { Caller } from "../peers.ts";
import { connectionWith, HandClock, PaperFd, peerNamed } from "../testing/fakes.ts";
import { PaperStream } from "../testing/fakes-outside.ts";
import { Registration } from "./register.ts";

const SECOND = 1000;
const MINUTE = 60_000;
const DAY = 86_400_000;

/** How a manager differs from another. Milliseconds. */
interface Ways {
  /** Of the tokens that the forwarder signs. */
  readonly ours: number;
  /** Of the manager's tokens. */
  readonly theirs: number;
  /** What it grants at most: a minute in NSM's. */
  readonly most?: number;
  /** How far its clock is ahead of ours. */
  readonly ahead?: number;
  /** How far the clock of the registry behind it is ahead of its own. */
  readonly registryAhead?: number;
  /** How long a call takes. */
  readonly takes?: number;
  readonly seed?: number;
  /** How long it is followed. */
  readonly playedMs?: number;
}

for (const [title, ways] of Object.entries<Ways>({
  "ours 24 h, the manager's 20 s": { ours: DAY, theirs: 20 * SECOND },
  "ours 30 s, the manager's 24 h": { ours: 30 * SECOND, theirs: DAY },
  "ours 24 h, the manager's 10 s, as long as the first call may take": { ours: DAY, theirs: 10 * SECOND },
  "ours 24 h, the manager's 3 s": { ours: DAY, theirs: 3 * SECOND },
  "both 24 h": { ours: DAY, theirs: DAY },
  "both 24 h, and all of it granted": { ours: DAY, theirs: DAY, most: DAY },
})) {
  test(`Registration is renewed in time, and not more often than that: ${title}`, async () =>
    judge(ways, await play(ways)));
}

test("Registration is renewed in time, and not more often than that, at 200 drawn ratios of token lives", async () => {
  for (let seed = 1; seed <= 200; seed++) {
    const draw = seededFractions(seed);
    const life = () => Math.round(2 * SECOND * (DAY / (2 * SECOND)) ** draw());
    const ways = { ours: life(), theirs: life(), most: [20 * SECOND, MINUTE, DAY][seed % 3] ?? MINUTE, seed };
    const granted = Math.min(ways.ours, ways.theirs, ways.most);
    const drawn = { ...ways, takes: Math.min((granted / 40) * draw(), 200), playedMs: granted * 15 };
    judge(drawn, await play(drawn));
  }
});

/** No call more than needed, and never dropped but for one at the start that gave the manager more time than it then granted. */
function judge(ways: Ways, { calls, drops, lost }: Played): void {
  const { playedMs = PLAYED_MS } = ways;
  const granted = Math.min(ways.ours, ways.theirs, ways.most ?? MINUTE) - SECOND; // tokens end at whole seconds
  const enough = 3 + playedMs / (granted * 0.55);
  assert.deepEqual(
    [drops <= (granted < 10 * SECOND ? 1 : 0), lost],
    [true, 0],
    `${drops} drops, ${JSON.stringify(ways)}`,
  );
  assert.ok(
    calls >= Math.floor(playedMs / (granted + SECOND)) && calls <= enough,
    `${calls} calls, ${JSON.stringify(ways)}`,
  );
}

test("Registration is dropped twice at most by a manager whose clock is ahead of ours", async () => {
  const { calls, drops, lost } = await play({ ours: DAY, theirs: DAY, ahead: 10 * MINUTE });
  assert.deepEqual([drops, lost], [2, 2]);
  assert.ok(calls < PLAYED_MS / (25 * SECOND), `${calls} calls`);
});

test("Registration at a manager whose clock is behind ours is kept, and not renewed all the time", async () => {
  const { calls, drops, lost } = await play({ ours: DAY, theirs: DAY, ahead: -10 * MINUTE });
  assert.deepEqual([drops, lost], [0, 0]);
  assert.ok(calls <= 2 + PLAYED_MS / (2 * SECOND), `${calls} calls`);
});

test("Registration that a manager drops at once, for its registry's clock is behind, is not repeated all the time", async () => {
  const { calls } = await play({ ours: DAY, theirs: DAY, registryAhead: -10 * MINUTE });
  assert.ok(calls < PLAYED_MS / (2 * SECOND), `${calls} calls`);
});

test("Registration gives a manager more time that needs more than what it grants seems to allow", async () => {
  const { calls, registered } = await play({ ours: DAY, theirs: 12 * SECOND, takes: 3 * SECOND });
  assert.ok(registered, "it is not registered at the end");
  assert.ok(calls < PLAYED_MS / (2 * SECOND), `${calls} calls`);
});

const PLAYED_MS = 30 * MINUTE;

interface Played {
  readonly calls: number;
  readonly drops: number;
  readonly lost: number;
  readonly registered: boolean;
}

async function play(ways: Ways): Promise<Played> {
  const clock = new HandClock();
  const log = recordingLog();
  const manager = new StockManager(clock, ways);
  const registration = new Registration({
    name: "fwd-a",
    networkServices: ["forwarder"],
    labels: {},
    managerTarget: "unix:///nsmgr",
    socket: { fd: new PaperFd(), id: { dev: 8n, ino: 99n } },
    tokenLifetimeMs: ways.ours,
    caller: manager,
    clock,
    log,
    random: seededFractions(ways.seed ?? 0),
  });
  registration.start();
  await clock.pass(ways.playedMs ?? PLAYED_MS);
  const registered = registration.state.value?.kind === "registered";
  const { calls, drops } = manager;
  const stopped = registration.stop();
  await clock.pass(MINUTE);
  await stopped;
  manager.close();
  assert.equal(clock.timerCount, 0);
  return { calls, drops, lost: log.of("registration-lost").length, registered };
}

/** What the SDK's `registry/common/expire` and its watches do to one entry. */
class StockManager implements Caller {
  calls = 0;
  drops = 0;
  readonly #clock: HandClock;
  readonly #ways: Ways;
  readonly #watches = new Set<PaperStream<unknown>>();
  #expiry: ReturnType<Clock["after"]> | undefined;

  constructor(clock: HandClock, ways: Ways) {
    this.#clock = clock;
    this.#ways = ways;
  }

  async call<I extends DescMessage, O extends DescMessage>(
    _target: string,
    method: { readonly name: string; readonly output: O },
    _request: MessageInitShape<I>,
    { timeoutMs = Number.POSITIVE_INFINITY, signal }: CallOptions = {},
  ) {
    const { takes = 0 } = this.#ways;
    if (takes > timeoutMs) {
      await this.#clock.sleep(timeoutMs, signal);
      this.calls += 1;
      throw new RpcError("DEADLINE_EXCEEDED", `no answer within ${timeoutMs} ms`);
    }
    if (takes > 0) await this.#clock.sleep(takes, signal);
    this.close();
    const ends = method.name === "Register" ? { expirationTime: timestampFromMs(this.#register(timeoutMs)) } : {};
    return {
      response: create(NetworkServiceEndpointSchema, ends) as unknown as MessageShape<O>,
      metadata: new Map<string, string[]>(),
      connection: connectionWith(peerNamed("nsmgr-a")),
    };
  }

  /** Its `Until(expirationTime) - requestTimeout`; the call has taken some of that by then. */
  #register(timeoutMs: number): number {
    const { ours, theirs, most = MINUTE, ahead = 0, registryAhead = 0, takes = 0 } = this.#ways;
    this.calls += 1;
    const nowMs = this.#clock.now() + ahead;
    const tokens = [this.#clock.now() + ours, nowMs + theirs].map((endMs) => Math.floor(endMs / SECOND) * SECOND);
    const byRegistry = nowMs + registryAhead + most;
    const expiresMs = Math.min(...tokens, nowMs + most, byRegistry);
    const leftMs = expiresMs - nowMs - (timeoutMs - takes);
    this.#expiry = this.#clock.after(Math.max(leftMs, 0), () => this.#drop());
    return expiresMs;
  }

  #drop(): void {
    this.drops += 1;
    const dropped = { deleted: true, networkServiceEndpoint: { name: "fwd-a" } };
    for (const watch of this.#watches) watch.push(create(NetworkServiceEndpointResponseSchema, dropped));
  }

  close(): void {
    this.#expiry?.cancel();
  }

  stream<O extends DescMessage>(): RpcStream<MessageShape<O>> {
    const stream = new PaperStream<MessageShape<O>>({ peer: peerNamed("nsmgr-a"), fds: undefined });
    const watch = stream as unknown as PaperStream<unknown>;
    this.#watches.add(watch);
    return stream as unknown as RpcStream<MessageShape<O>>;
  }
}
