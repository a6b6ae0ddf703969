import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../async/index.ts";
import { Inventory } from "../inventory/index.ts";
import { parsePciAddress } from "../pci/index.ts";
import { Health } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { ShownNode } from "./node-view.ts";

const pf = parsePciAddress("01:00.0");
const [first, second, third] = [0, 1, 2].map((n) => parsePciAddress(`01:10.${n}`));
const survey = { config: { physicalFunctions: [] }, pfs: new Map(), carrierOf: () => "up", problemOf: () => undefined };

function shownNode() {
  assert.ok(first && second && third);
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const common = { pf, iommuGroup: undefined, numaNode: 0, kernelDriver: "igbvf", driver: "igbvf", resources: ["d/x"] };
  const functions = [first, second, third].map((address, index) => ({ ...common, address, index }));
  inventory.sync(pf, functions.toReversed());
  const tokenId = inventory.devicesOf("d/x").find(({ address }) => address === first)?.id ?? "";
  const log = recordingLog();
  const health = new Health(systemClock);
  const clock = { ...systemClock, now: () => 1_700_000_000_000, monotonicMs: () => 7 };
  const shown = new ShownNode({ name: "fwd", health, clock, log });
  shown.show({ inventory, survey: survey as never, hostUse: { ofPf: () => "it is a port of br0" } as never });
  return { inventory, shown, health, log, tokenId, first, second, third };
}

test("view() shows each VF as the inventory has it at this moment, with its pod and connection", () => {
  const { inventory, shown, tokenId, second, third } = shownNode();
  const connection = {
    id: "c1",
    pathId: "c1",
    phase: "established",
    mechanism: "KERNEL",
    client: "pod-1",
    networkService: "s",
  };
  const nsm = { connections: () => [{ ...connection, endpoint: "e", expiresMs: 5 }] };
  shown.learn({ nsm, podOf: (id) => (id === tokenId ? "default/pod-1" : undefined) });
  inventory.reserveToken(tokenId);
  inventory.take({ connectionId: "c1", tokenId, use: "kernel" });
  inventory.setState("c1", "ready");
  inventory.raise(second, { code: "pf-without-carrier", error: "its link is down" });
  inventory.raise(third, { code: "write-stuck", error: "the kernel does not finish a write" });

  const current = { value: { id: "spiffe://test/fwd", notAfterMs: 5 } };
  shown.learn({ identity: { current } as never });
  const view = shown.view();
  assert.deepEqual(view.identity, { spiffeId: "spiffe://test/fwd", expiresMs: 5 });
  assert.deepEqual([view.startedMs, view.seenMs], [1_700_000_000_000, 1_700_000_000_000]);
  assert.deepEqual(
    view.pfs[0]?.vfs.map(({ index, state, pod, connection: id }) => [index, state, pod, id]),
    [
      [0, "ready", "default/pod-1", "c1"],
      [1, "idle", undefined, undefined],
      [2, "quarantined", undefined, undefined],
    ],
  );
  assert.deepEqual(
    view.pfs[0]?.vfs.map(({ conditions }) => conditions),
    [
      [],
      [{ code: "pf-without-carrier", effect: "unhealthy", label: "without carrier", text: "its link is down" }],
      [
        {
          code: "write-stuck",
          effect: "quarantine",
          label: "with a stuck write",
          text: "the kernel does not finish a write",
        },
      ],
    ],
  );
  assert.equal(view.pfs[0]?.hostUse, "it is a port of br0");
  assert.deepEqual([view.connections[0]?.vf, view.connections[0]?.pod], ["0000:01:10.0", "default/pod-1"]);
  assert.deepEqual(view.resources, [{ name: "d/x", total: 3, inUse: 1, free: 0, unavailable: 2 }]);
});

test("view() holds the beginning of a token and never a whole one, by whatever name", () => {
  const { inventory, shown, health, log, tokenId } = shownNode();
  inventory.reserveToken(tokenId);
  shown.log.with({ connection: "c1" }).warn("call-failed", { error: `endpoint said ${tokenId}` });
  const view = shown.view();
  assert.equal(view.pfs[0]?.vfs[0]?.token, `${tokenId.slice(0, 10)}…`);
  assert.equal(view.troubles[0]?.text, `connection=c1 error="endpoint said ${tokenId.slice(0, 10)}…"`);
  health.condition("resource-not-registered", `kubelet said ${tokenId}`);
  assert.match(shown.view().conditions[0]?.sentence ?? "", /^kubelet said .*…$/);
  assert.ok(!JSON.stringify([view, shown.view()]).includes(tokenId));
  assert.equal(log.of("call-failed").length, 1);
});

test("onChange() hears of the inventory, of health, of the log, and of parts that are made known", () => {
  const { inventory, shown, health, tokenId } = shownNode();
  let heard = 0;
  const stop = shown.onChange(() => {
    heard += 1;
  });
  const changes = [
    () => inventory.reserveToken(tokenId),
    () => shown.log.info("pf-carrier"),
    () => shown.learn({ podOf: () => "default/a" }),
    () => health.condition("svid-missing", "no answer"),
  ];
  for (const [at, change] of changes.entries()) {
    change();
    assert.ok(heard > at, `change ${at}`);
  }
  stop();
  const before = heard;
  shown.log.info("pf-carrier");
  assert.equal(heard, before);
});
