// What no list of cases holds: callers, manager, registry, endpoints, VF, time and our own restart, in any order and two at a
// time. After each step the parts of the forwarder say the same of every connection; at the end nothing is left.
import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { clone, create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { until } from "../../test/scenes/until.ts";
import {
  type Connection,
  ConnectionEventSchema,
  ConnectionEventType,
  ConnectionSchema,
  State,
} from "../gen/connection_pb.ts";
import type { NetworkServiceRequest } from "../gen/networkservice_pb.ts";
import { RpcError } from "../rpc/index.ts";
import { kernelRequest, type Manager, refreshOf, settled } from "./testing/fakes.ts";
import { endpointReply } from "./testing/fakes-outside.ts";
import { disagreements } from "./testing/ledger.ts";
import { endStories, Story } from "./testing/story.ts";

afterEach(endStories);

const SEEDS = 60;
const STEPS = 24;
const FORMER = "inode://8/1";
const LATTER = "inode://8/2";
const LISTS = [
  [{ name: "nse-1", url: FORMER }],
  [{ name: "nse-1", url: LATTER }],
  [
    { name: "nse-2", url: "tcp://nse-2:1" },
    { name: "nse-1", url: LATTER },
  ],
  [
    { name: "nse-1", url: FORMER },
    { name: "nse-2", url: "tcp://nse-2:1" },
  ],
  [{ name: "nse-1", url: FORMER, expirationTime: timestampFromMs(0) }],
  [],
];
const WAITS_MS = [100, 600, 6_000, 40_000, 700_000];

class World {
  story = new Story();
  readonly #random: () => number;
  readonly #answers = new Map<number, Connection>();
  #manager: Manager = this.story.manager;
  #managers = 0;
  #mood: "agrees" | "is slow" | "is away" | "refuses" | "answers nonsense" = "agrees";

  constructor(seed: number) {
    this.#random = randomFrom(seed);
    this.#furnish();
    this.#list();
  }

  pick<T>(choices: readonly T[]): T {
    return choices[Math.floor(this.#random() * choices.length)] as T;
  }

  /** One thing that happens; it may continue after this has returned. */
  readonly happenings: Readonly<Record<string, () => unknown>> = {
    "a client asks": () => this.#request(this.#first()),
    "a client asks and leaves": () => this.#request(this.#first(), this.#leaving()),
    "a client refreshes": () => this.#refresh(),
    "a client refreshes and leaves": () => this.#refresh(this.#leaving()),
    "a client wants another endpoint": () => this.#refresh(undefined, State.RESELECT_REQUESTED),
    "a client closes": () => this.#close(),
    "the manager's pod is another": () => {
      this.#manager = this.story.newManager(`nsmgr-${++this.#managers}`);
    },
    "the registry changes": () => this.#list(),
    "endpoints change their mind": () => {
      this.#mood = this.pick(["agrees", "agrees", "is slow", "is away", "refuses", "answers nonsense"]);
    },
    "an endpoint dies": () => this.pick(this.#live())?.end(new RpcError("UNAVAILABLE", "connection lost")),
    "an endpoint reports a change": () => this.#reportChange(),
    "the VF resists": () => {
      this.story.vf.failing.set(this.pick(["detach", "bind", "attach", "stands", "give-back"]), new Error("not now"));
    },
    "the VF is good again": () => this.story.vf.failing.clear(),
    "endpoints hear no Close": () => {
      this.story.outside.closeFailure = new RpcError("UNAVAILABLE", "failed to dial");
    },
    "endpoints hear again": () => {
      this.story.outside.closeFailure = undefined;
    },
    "time passes": () => this.story.clock.pass(this.pick(WAITS_MS)),
  };

  /** The process dies with nothing under way, and the next one begins. */
  restart(): void {
    const before = this.story;
    this.story = before.successor();
    const manager = this.#manager.peer.spiffeId.split("/").at(-1) ?? "";
    this.#manager = this.story.newManager(manager);
    this.#furnish();
  }

  #furnish(): void {
    const { outside } = this.story;
    for (const url of [FORMER, LATTER]) outside.fds.sent.add(url);
    outside.replies.get = (target) => this.#reply(target.startsWith("tcp:") ? "nse-2" : "nse-1");
  }

  #list(): void {
    this.story.outside.endpoints = this.pick(LISTS).map((one) => ({ ...one, networkServiceNames: ["ns1"] }));
  }

  #reply(name: string): ReturnType<typeof endpointReply> {
    return async (request) => {
      const mood = this.#mood;
      if (mood === "is slow") for (let turns = 0; turns < 3; turns++) await settled();
      if (mood === "is away") throw new RpcError("UNAVAILABLE", `failed to dial ${name}`);
      if (mood === "refuses") throw new RpcError("PERMISSION_DENIED", "no");
      const mtu = this.pick([0, 1_400]);
      return await endpointReply(name, (connection) => {
        if (connection.context) connection.context.MTU = mtu;
        if (mood === "answers nonsense") connection.id = "of another client";
      })(request);
    };
  }

  #live() {
    return this.story.outside.watches.filter(({ isOver }) => !isOver);
  }

  #reportChange(): void {
    const { deps, outside } = this.story;
    for (const { watch, state } of deps.connections.values()) {
      const stream = outside.watches.find(({ isOver }) => !isOver);
      if (!watch?.isAlive || !stream) continue;
      const theirs = clone(ConnectionSchema, state.connection);
      theirs.state = this.pick([State.UP, State.DOWN]);
      stream.push(create(ConnectionEventSchema, { type: ConnectionEventType.UPDATE, connections: { e1: theirs } }));
    }
  }

  #leaving(): AbortSignal {
    const caller = new AbortController();
    const turns = this.pick([0, 1, 2, 6]);
    void (async () => {
      for (let turn = 0; turn < turns; turn++) await Promise.resolve();
      if (turns > 2) await settled();
      caller.abort(new RpcError("CANCELLED", "the caller has gone"));
    })();
    return caller.signal;
  }

  /** Two clients want the one VF, two want none. */
  #first(): { readonly client: number; readonly message: NetworkServiceRequest } {
    const client = this.pick([1, 1, 2, 3, 4]);
    const message = kernelRequest({}, `m${client}`);
    const first = message.connection?.path?.pathSegments[0];
    if (first) first.id = `c${client}`;
    const [mechanism] = message.mechanismPreferences;
    if (client > 2 && mechanism) Object.assign(mechanism, { type: "NOOP", parameters: {} });
    return { client, message };
  }

  async #request(
    { client, message }: { readonly client: number; readonly message: NetworkServiceRequest },
    signal?: AbortSignal,
  ): Promise<void> {
    const said = { from: this.#manager, tokenMs: this.pick([30_000, 600_000]), ...(signal ? { signal } : {}) };
    this.#answers.set(client, await this.story.request(message, said));
  }

  async #refresh(signal?: AbortSignal, state?: State): Promise<void> {
    const [client, answer] = this.pick([...this.#answers]) ?? [];
    if (client === undefined || !answer) return;
    const message = refreshOf(answer);
    const { connection } = message;
    const [mechanism] = message.mechanismPreferences;
    if (client > 2 && mechanism) Object.assign(mechanism, { type: "NOOP", parameters: {} });
    if (connection && state !== undefined) connection.state = state;
    if (connection && (state !== undefined || this.pick([true, false]))) connection.networkServiceEndpointName = "";
    await this.#request({ client, message }, signal);
  }

  async #close(): Promise<void> {
    const [client, answer] = this.pick([...this.#answers]) ?? [];
    if (client === undefined || !answer) return;
    this.#answers.delete(client);
    await this.story.close(answer, { from: this.#manager });
  }
}

for (let seed = 1; seed <= SEEDS; seed++) {
  test(`whatever happens, the forwarder agrees with itself and leaves nothing behind (${seed})`, async () => {
    const world = new World(seed);
    const history: string[] = [];
    for (let step = 0; step < STEPS; step++) {
      const names = Array.from({ length: world.pick([1, 1, 2, 3]) }, () => world.pick(Object.keys(world.happenings)));
      history.push(names.join(" while "));
      await through(world, names);
      if (world.pick([true, false, false, false, false])) {
        world.restart();
        history.push("restart");
        await settled();
      }
      assert.deepEqual(await disagreements(world.story), [], history.join("\n"));
    }
  });
}

/** Until all that has begun is over; some of it waits for time to pass. */
async function through(world: World, names: readonly string[]): Promise<void> {
  let isOver = false;
  const works = names.map(async (name) => await world.happenings[name]?.());
  void Promise.allSettled(works).then(() => {
    isOver = true;
  });
  await settled();
  const turn = () => world.story.clock.pass(500);
  await until(`all is over of ${names.join(", ")}`, () => isOver, { turn });
  await settled();
}

/** The same numbers in [0, 1) for the same seed (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed * 0x9e3779b9;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
