// Kubelet and the forwarder restart, in every order and at every moment of a pod: each VF has a client or is offered.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { SANDBOX_RESOURCE, Sandbox, type SandboxPod } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import type { Forwarder } from "../../src/forwarder.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { needs } from "../needs.ts";
import { eventually } from "./scenes/story.ts";

const SIBLING = "worker.domain/intel";
const FUNCTIONS = 6;

/** A node with one pod whose connection stays established through everything. */
class Node {
  readonly sandbox: Sandbox;
  forwarder: Forwarder;
  readonly #established: SandboxPod;
  #pods = 0;

  private constructor(sandbox: Sandbox, forwarder: Forwarder, established: SandboxPod) {
    this.sandbox = sandbox;
    this.forwarder = forwarder;
    this.#established = established;
  }

  static async open(): Promise<Node> {
    const sandbox = await Sandbox.start({
      machine: { vfsPerPf: FUNCTIONS / 2, realLinks: true },
      settings: { resourcePollTimeoutMs: 100 },
      log: silentLog,
      clock: systemClock,
    });
    const forwarder = await sandbox.startForwarder();
    await sandbox.kubelet.until(SANDBOX_RESOURCE, ({ length }) => length === FUNCTIONS);
    const established = await sandbox.startPod("standing");
    await established.client.request();
    return new Node(sandbox, forwarder, established);
  }

  readonly restartKubelet = () => this.sandbox.kubelet.restart();

  readonly restartForwarder = async () => {
    await this.sandbox.stopForwarder();
    this.forwarder = await this.sandbox.startForwarder();
  };

  nextName(): string {
    this.#pods += 1;
    return `pod-${this.#pods}`;
  }

  pod(): Promise<SandboxPod> {
    return this.sandbox.startPod(this.nextName());
  }

  /** What the standing pod sees of its connection: a link that was away has another index. */
  seenByEstablished() {
    return this.#established.pod.links();
  }

  /** Kubelet has every device of both names, and those are free of which no pod has the VF. */
  async offers(held: number): Promise<void> {
    const seen = () => {
      const devices = this.sandbox.kubelet.devices.value;
      const counts = [SANDBOX_RESOURCE, SIBLING].map((name) => devices?.get(name) ?? []);
      return counts.map((list) => `${list.filter(({ healthy }) => healthy).length} of ${list.length}`);
    };
    const desired = [`${FUNCTIONS} of ${FUNCTIONS}`, `${FUNCTIONS - held} of ${FUNCTIONS}`];
    await eventually(seen, (now) => String(now) === String(desired));
  }

  /** Everything that is offered can be had at once, each VF by one pod; one more cannot. All of it is given back. */
  async givesEachOnce(held: number): Promise<void> {
    const { kubelet } = this.sandbox;
    const crowd = Array.from({ length: FUNCTIONS - held }, () => this.nextName());
    for (const pod of crowd) await kubelet.allocate({ pod, resource: SIBLING });
    await assert.rejects(kubelet.allocate({ pod: this.nextName(), resource: SIBLING }), /0 of 6 are available/);
    const vfs = this.forwarder.node.inventory.snapshot();
    const holders = vfs.flatMap(({ tokenId }) => tokenId ?? []);
    const given = kubelet.allocations.flatMap(({ ids }) => ids);
    assert.deepEqual(holders.toSorted(), given.toSorted(), "each token of a pod has one VF");
    await this.#listed();
    for (const pod of crowd) kubelet.free(pod);
    await this.offers(held);
  }

  /** A pod that was never listed counts as there until kubelet writes its file again (docs/decisions/014). */
  async #listed(): Promise<void> {
    const { podResources } = this.sandbox.kubelet;
    const before = podResources.calls;
    await eventually(
      () => podResources.calls,
      (calls) => calls > before + 1,
    );
  }

  /** The standing pod continues as before, and what it is given is what it had. */
  async refreshes(): Promise<void> {
    const before = await this.seenByEstablished();
    await this.#established.client.request();
    assert.deepEqual(await this.seenByEstablished(), before);
  }
}

/** Restarts in an order. None waits for what the one before has set going. */
const orders: Readonly<Record<string, (node: Node) => Promise<unknown>>> = {
  kubelet: (node) => node.restartKubelet(),
  "the forwarder": (node) => node.restartForwarder(),
  "kubelet, then the forwarder": async (node) => {
    await node.restartKubelet();
    await node.restartForwarder();
  },
  "the forwarder, then kubelet": async (node) => {
    await node.restartForwarder();
    await node.restartKubelet();
  },
  "both at once": (node) => Promise.all([node.restartKubelet(), node.restartForwarder()]),
};

/** What continues meanwhile. Returns what must be so afterwards; whatever it holds is free again at its end. */
const moments: Readonly<Record<string, (node: Node) => Promise<() => Promise<void>>>> = {
  "a connection stands": async (node) => {
    const pod = await node.pod();
    await pod.client.request();
    const links = await pod.pod.links();
    return async () => {
      await node.offers(2);
      assert.deepEqual(await pod.pod.links(), links);
      await node.givesEachOnce(2);
      await pod.client.close();
      node.sandbox.kubelet.free(pod.name);
    };
  },
  "a pod has its token and has asked for nothing yet": async (node) => {
    const pod = await node.pod();
    return async () => {
      await node.offers(2);
      await node.givesEachOnce(2);
      await pod.client.request();
      assert.equal((await pod.pod.link("nsm-1"))?.up, true);
      await pod.client.close();
      node.sandbox.kubelet.free(pod.name);
    };
  },
  "Allocate is on its way": async (node) => {
    const name = node.nextName();
    const allocation = node.sandbox.kubelet.allocate({ pod: name, resource: SANDBOX_RESOURCE });
    allocation.catch(() => {}); // looked at when everything has restarted
    return () => getsItsToken(node, name, allocation);
  },
  "kubelet has not yet written down what Allocate has answered": async (node) => {
    const name = node.nextName();
    const { promise: writeAfter, resolve } = Promise.withResolvers<void>();
    const allocation = node.sandbox.kubelet.allocate({ pod: name, resource: SANDBOX_RESOURCE, writeAfter });
    allocation.catch(() => {}); // looked at when everything has restarted
    await node.offers(2);
    return () => {
      resolve();
      return getsItsToken(node, name, allocation);
    };
  },
  "a pod that is deleted closes its connection": async (node) => {
    const { name, client, end } = await podWithoutManager(node);
    const closing = client.close().catch(() => {}); // a client that dies with its pod does not ask again
    node.sandbox.kubelet.free(name);
    return async () => {
      await closing;
      await end();
    };
  },
  "a pod is deleted and closes nothing": async (node) => {
    const { name, end } = await podWithoutManager(node);
    node.sandbox.kubelet.free(name);
    await end();
    return async () => {};
  },
};

/** A pod with its connection. Not by the sandbox's manager: it would keep a descriptor of the namespace, which is to end with the pod. */
async function podWithoutManager(node: Node) {
  const { name, pod, tokenId } = await node.pod();
  const parameters = { name: "nsm-1", tokenID: tokenId };
  const client = node.sandbox.directClient(name, { netns: pod.netns, parameters });
  await client.request();
  const end = async () => {
    await client.hangUp();
    pod.close();
  };
  return { name, client, end };
}

/** Kubelet admits the pod, or has failed and admits it again: it has one token then, and its VF. */
async function getsItsToken(node: Node, pod: string, first: Promise<unknown>): Promise<void> {
  const { kubelet } = node.sandbox;
  const hasFailed = await first.then(
    () => false,
    () => true,
  );
  if (hasFailed) {
    await kubelet.until(SANDBOX_RESOURCE, (devices) => devices.some(({ healthy }) => healthy));
    await kubelet.allocate({ pod, resource: SANDBOX_RESOURCE });
  }
  await node.offers(2);
  await node.givesEachOnce(2);
  kubelet.free(pod);
}

describe("restarts", () => {
  let node: Node | undefined;
  after(() => node?.sandbox.stop());
  for (const [moment, begin] of Object.entries(moments)) {
    for (const [order, restart] of Object.entries(orders)) {
      test(`of ${order} while ${moment}`, async (t) => {
        if (!needs(t, "netns", "veth", "bridge")) return;
        node ??= await Node.open();
        const now = node;
        node = undefined; // what a failure leaves is of no use to the next test
        t.after(() => (node === now ? undefined : now.sandbox.stop()));
        const before = await now.seenByEstablished();
        const holds = await begin(now);
        await restart(now);
        await holds();
        await now.offers(1);
        assert.deepEqual(await now.seenByEstablished(), before);
        await now.givesEachOnce(1);
        await now.refreshes();
        assert.equal(now.forwarder.nsm.connectionCount, 1);
        node = now;
      });
    }
  }
});
