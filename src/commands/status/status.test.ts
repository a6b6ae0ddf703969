import assert from "node:assert/strict";
import test from "node:test";
import type { NodeView, VfView } from "../../admin/index.ts";
import { commands } from "../commands.ts";
import { recordingTerminal } from "../testing/fakes.ts";
import { eventData } from "./events.ts";
import { pictureText } from "./picture.ts";

const idle: VfView = {
  address: "0000:3b:01.0",
  index: 0,
  state: "idle",
  conditions: [],
  driver: "iavf",
  iommuGroup: 70,
};
const held: VfView = {
  ...idle,
  address: "0000:3b:01.1",
  index: 1,
  state: "ready",
  pod: "default/nsc",
  connection: "c-1",
};
const sick: VfView = {
  ...idle,
  address: "0000:3b:01.2",
  index: 2,
  conditions: [
    { code: "pf-without-carrier", effect: "unhealthy", label: "without carrier", text: "its PF has no carrier" },
    { code: "bind-failed", effect: "unhealthy", label: "not bound recently", text: "its driver cannot be bound" },
    { code: "host-use", effect: "inform", label: "", text: "never shown" },
  ],
};
const minuteMs = 60_000;

const node: NodeView = {
  name: "forwarder-1",
  version: "1.2.3",
  startedMs: 0,
  seenMs: 135 * minuteMs,
  isReady: true,
  conditions: [],
  identity: { spiffeId: "spiffe://example.org/forwarder", expiresMs: 182 * minuteMs },
  pfs: [
    {
      address: "0000:3b:00.0",
      ifname: "ens6f0",
      driver: "ice",
      carrier: "up",
      totalVfs: 8,
      resources: ["worker.domain/10G"],
      vfs: [idle, held, sick],
    },
  ],
  connections: [
    {
      id: "c-1",
      phase: "established",
      mechanism: "KERNEL",
      vf: held.address,
      client: "nsc",
      expiresMs: 140 * minuteMs,
    },
  ],
  resources: [{ name: "worker.domain/10G", total: 3, inUse: 1, free: 1, unavailable: 1 }],
  troubles: [],
};

const picture = (more: Partial<NodeView> = {}, { isWhole = false, columns = 200, isScreen = false } = {}) =>
  pictureText({ ...node, ...more }, recordingTerminal({ columns, isScreen }), { isWhole });

test("pictureText() says first who it is and how it is", () => {
  const [first, second] = picture().split("\n");
  assert.equal(first, "forwarder-1 1.2.3, ready, running for 2 h 15 min");
  assert.equal(second, "spiffe://example.org/forwarder, for another 47 min");
});

test("pictureText() says what is wrong before anything of the node", () => {
  const causes = { subject: undefined, sinceMs: node.seenMs - 12_000, severity: "blocking" } as const;
  const text = picture({
    isReady: false,
    conditions: [
      { ...causes, code: "svid-missing", sentence: "No agent answers", causedBy: [] },
      { ...causes, code: "not-serving", sentence: "Starting", causedBy: ["svid-missing"] },
    ],
  });
  assert.match(text, /NOT READY.*\n.*\n\nblocking {2}svid-missing, for 12 s\n {10}No agent answers\n/);
  assert.match(text, /Starting \(follows from svid-missing\)\n\nPhysical functions/);
});

test("pictureText() shows the VFs that clients have or that are not well, and counts the others", () => {
  const text = picture();
  assert.match(text, /0000:3b:00\.0 +ens6f0 +ice +up +3: 2 idle, 1 ready; 1 without carrier +worker\.domain\/10G/);
  assert.match(text, /0000:3b:01\.1 +ens6f0 1 +ready +iavf +70 +default\/nsc +c-1/);
  assert.match(
    text,
    /0000:3b:01\.2 .*\n0000:3b:01\.2: its driver cannot be bound\n1 more, idle and well \(--all shows them\)/,
  );
  assert.doesNotMatch(text, /0000:3b:01\.0|its PF has no carrier|never shown/);
  assert.match(picture({}, { isWhole: true }), /0000:3b:01\.0/);
});

test("pictureText() shows connections and what is left of them, and what kubelet is offered", () => {
  assert.match(picture(), /c-1 +established +KERNEL +0000:3b:01\.1 +nsc +5 min\n/);
  assert.match(picture({ seenMs: 141 * minuteMs }), /is over/);
  assert.match(picture(), /worker\.domain\/10G +3 +1 +1 +1\n/);
});

test("pictureText() cuts on a screen only, and shows no control characters of peers", () => {
  const [connection] = node.connections;
  assert.ok(connection);
  const id = `c-${"x".repeat(200)}`;
  const hostile = {
    ...connection,
    id,
    client: "\u001b[2Jnsc\nFORGED",
    pod: "default/nsc",
    endpoint: id,
    networkService: id,
  };
  const narrow = picture({ connections: [hostile] }, { columns: 90, isScreen: true });
  assert.ok(
    narrow.split("\n").every((line) => line.length <= 90),
    narrow,
  );
  const whole = picture({ connections: [hostile] });
  assert.ok(whole.includes(id) && !whole.includes("\u001b") && whole.includes("?[2Jnsc?FORGED"), whole);
});

async function* pieces(text: string, size: number): AsyncIterable<string> {
  for (let at = 0; at < text.length; at += size) yield text.slice(at, at + size);
}

for (const size of [1, 3, 1000]) {
  test(`eventData() reads events that come in pieces of ${size}`, async () => {
    const text = ': still here\n\ndata: {"a":1}\n\nevent: x\r\ndata: two\r\ndata:lines\r\n\r\ndata: cut off';
    const events: string[] = [];
    for await (const data of eventData(pieces(text, size))) events.push(data);
    assert.deepEqual(events, ['{"a":1}', "two\nlines"]);
  });
}

test("the example of status for jq names what the document has", () => {
  const example = commands.flatMap(({ name, examples }) => (name === "status" ? examples : [])).at(-1)?.line ?? "";
  const filter = /jq '(.*)'/.exec(example)?.[1] ?? assert.fail(example);
  const keys = new Set<string>();
  JSON.parse(JSON.stringify(node), (key, value: unknown) => {
    keys.add(key);
    return value;
  });
  const named = [...filter.matchAll(/\.(\w+)/g)].map(([, name = ""]) => name);
  assert.deepEqual([named.length > 2, named.filter((name) => !keys.has(name))], [true, []]);
});
