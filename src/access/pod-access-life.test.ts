// A pod whose containers come and go while it has access: what is kept, what is said, and what is taken from it at the end.
import assert from "node:assert/strict";
import { test } from "node:test";
import { type CgroupFolder, Errno, KernelError } from "../kernel/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import type { PodFinder } from "./find-pod-cgroup.ts";
import { HeldGrant } from "./held-grant.ts";
import { PodAccess } from "./pod-access.ts";
import type { Rules } from "./rules.ts";

const UID = "0f3b7c1e-9d5a-4c61-8a3e-2b1f6d7e8c90";
const POD = `kubepods/pod${UID}`;
const first = { major: 245, minor: 7 };

/** What there is of the pod, and what was done to it. */
class Scene {
  isThere = true;
  containers = ["one"];
  /** By cgroup and minor number. */
  readonly allowed = new Set<string>();
  failure: Error | undefined;
  onWithdraw = () => {};
  resists = false;
  /** After it was read that nothing is missing in a cgroup, or after something was written. */
  onAllow = (_wrote: boolean) => {};
  repairs = 0;
  readonly gone: string[] = [];
  readonly log = recordingLog();
  readonly pod = new PodAccess(UID, {
    root: this.#folder(""),
    finder: { find: () => (this.isThere ? POD : undefined) } as unknown as PodFinder,
    rules: this.#rules(),
    log: this.log,
    onRepair: () => {
      this.repairs += 1;
    },
    onChange() {},
    onBlind() {},
    onGone: (ids) => this.gone.push(...ids),
  });

  grant({ connectionId = "c1", cgroupDir = "", device = first, isAdopted = false } = {}): HeldGrant {
    const record = async () => {};
    const requested = HeldGrant.ofRequest({ connectionId, pod: { uid: UID }, cgroupDir, devices: [device], record });
    const grant = isAdopted ? HeldGrant.ofState(requested.state, record) : requested;
    if (isAdopted) this.pod.adopt(grant);
    return grant;
  }

  #folder(path: string): CgroupFolder {
    return {
      identity: path,
      children: () => {
        if (!this.isThere) throw new KernelError("list a cgroup", Errno.ENOENT);
        return path === POD ? this.containers : [];
      },
      beneath: (name: string) => this.#folder(path === "" ? name : `${path}/${name}`),
      onChange: () => () => {},
      close() {},
    } as unknown as CgroupFolder;
  }

  #rules(): Rules {
    const keys = (path: string, devices: readonly { readonly minor: number }[]) =>
      devices.map(({ minor }) => `${path.slice(POD.length)} ${minor}`);
    return {
      allow: async ({ path }, devices) => {
        if (this.failure) throw this.failure;
        const missing = keys(path, devices).filter((key) => !this.allowed.has(key));
        for (const key of missing) this.allowed.add(key);
        this.onAllow(missing.length > 0);
        return missing.length > 0 ? { devices, wrote: [] } : undefined;
      },
      withdraw: async ({ path }, { devices }) => {
        if (this.resists) return devices.map(() => `${path} keeps it`);
        for (const key of keys(path, devices)) this.allowed.delete(key);
        this.onWithdraw();
        return [];
      },
      rulesFor: () => [],
      isInForce: async ({ path }, devices) => keys(path, devices).every((key) => this.allowed.has(key)),
      strays: async () => [],
      fingerprint: async ({ path }) => [...this.allowed].filter((key) => key.startsWith(path.slice(POD.length))).join(),
    };
  }
}

const scanFolders = (scene: Scene) => scene.pod.rescan({ atFolders: true });

test("access is not in force in a pod without a container, whatever its own cgroup has", async () => {
  const scene = new Scene();
  const grant = scene.grant();
  await scene.pod.apply(grant);
  assert.equal(await scene.pod.isInForce(grant), true);
  scene.containers = [];
  assert.equal(await scene.pod.isInForce(grant), false);
});

test("a container that comes later is extended, and only what was taken from one counts as repaired", async () => {
  const scene = new Scene();
  await scene.pod.apply(scene.grant());
  scene.containers = ["one", "two"];
  await scanFolders(scene);
  assert.deepEqual([scene.allowed.has("/two 7"), scene.repairs], [true, 0]);
  scene.allowed.delete("/two 7");
  await scanFolders(scene);
  assert.deepEqual([scene.allowed.has("/two 7"), scene.repairs], [true, 1]);
});

test("a second grant that is adopted is made sure of, though the pod was settled for the first", async () => {
  const scene = new Scene();
  scene.grant({ isAdopted: true });
  await scanFolders(scene);
  scene.grant({ connectionId: "c2", device: { ...first, minor: 8 }, isAdopted: true });
  await scanFolders(scene);
  assert.ok(scene.allowed.has("/one 8"), [...scene.allowed].join());
});

test("a pod that ended while no forwarder ran is reported at the first scan, once, and again when it has ended again", async () => {
  const scene = new Scene();
  scene.isThere = false;
  scene.grant({ isAdopted: true });
  for (let scan = 0; scan < 2; scan++) await scene.pod.rescan({ atFolders: false });
  assert.deepEqual(scene.gone, ["c1"]);
  await scanFolders(scene);
  scene.isThere = true;
  await scanFolders(scene);
  scene.isThere = false;
  await scanFolders(scene);
  assert.deepEqual(scene.gone, ["c1", "c1"]);
});

test("what keeps access from being kept is logged once, and once more when it comes back", async () => {
  const scene = new Scene();
  await scene.pod.apply(scene.grant());
  const troubled = async () => {
    scene.allowed.clear();
    scene.failure = new Error("another program holds its filter");
    for (let scan = 0; scan < 2; scan++) await scanFolders(scene);
    scene.failure = undefined;
    await scanFolders(scene);
    return scene.log.of("access-not-kept").length;
  };
  assert.deepEqual([await troubled(), await troubled()], [1, 2]);
});

test("a container that starts while access is revoked loses it too", async () => {
  const scene = new Scene();
  const grant = scene.grant();
  await scene.pod.apply(grant);
  scene.onWithdraw = () => {
    if (scene.containers.length > 1) return;
    scene.containers = ["one", "two"];
    scene.allowed.add("/two 7"); // as its runtime has copied it
  };
  await scene.pod.revoke(grant);
  assert.deepEqual([...scene.allowed], []);
});

test("a path of the client that ends like the pod's, but not at a whole name, is another pod's", async () => {
  const scene = new Scene();
  await scene.pod.apply(scene.grant({ cgroupDir: `outer/${POD}/one` }));
  const foreign = scene.grant({ cgroupDir: `outer-${POD}/one` });
  await assert.rejects(scene.pod.apply(foreign), { fault: { kind: "foreign-cgroup", text: `outer-${POD}`, pod: UID } });
});

test("a caller that has gone gets nothing", async () => {
  const scene = new Scene();
  await assert.rejects(scene.pod.apply(scene.grant(), AbortSignal.abort(new Error("gone"))), /gone/);
  assert.equal(scene.allowed.size, 0);
});

test("a second grant gets its device, though all cgroups are settled for the first, and each keeps what it needs", async () => {
  const scene = new Scene();
  const [one, other] = [scene.grant(), scene.grant({ connectionId: "c2", device: { ...first, minor: 8 } })];
  const same = scene.grant({ connectionId: "c3" });
  for (const grant of [one, other, same]) await scene.pod.apply(grant);
  assert.ok(scene.allowed.has("/one 8"), [...scene.allowed].join());
  await one.intend([{ ...first, cgroup: `${POD}/one`, access: "rw" }]);
  await scene.pod.revoke(one);
  assert.deepEqual([...scene.allowed].sort(), [" 7", " 8", "/one 7", "/one 8"]);
  assert.deepEqual(
    [one, other, same].map(({ state }) => state.wrote.length),
    [0, 0, 1],
  );
  await scene.pod.revoke(same);
  assert.deepEqual([...scene.allowed].sort(), [" 8", "/one 8"]);
});

test("a grant that could not be revoked stays one, not kept, until it is", async () => {
  const scene = new Scene();
  const grant = scene.grant();
  await scene.pod.apply(grant);
  scene.resists = true;
  const left = [`${POD} keeps it`, `${POD}/one keeps it`];
  await assert.rejects(scene.pod.revoke(grant), { fault: { kind: "not-revoked", pod: UID, left } });
  assert.deepEqual([scene.pod.grants.has(grant), grant.isKept], [true, false]);
  scene.resists = false;
  await scene.pod.revoke(grant);
  assert.deepEqual([scene.pod.grants.has(grant), scene.allowed.size], [false, 0]);
});

test("what another program takes away while the rules are read is given again by the next scan", async () => {
  const scene = new Scene();
  scene.onAllow = (wrote) => {
    if (wrote) return;
    scene.onAllow = () => {};
    scene.allowed.delete(" 7");
  };
  await scene.pod.apply(scene.grant());
  assert.equal(scene.allowed.has(" 7"), false);
  await scanFolders(scene);
  assert.equal(scene.allowed.has(" 7"), true);
});

test("a cgroup that another program changes while it is extended is logged once", async () => {
  const scene = new Scene();
  await scene.pod.apply(scene.grant());
  scene.containers = ["one", "two"];
  let left = 1;
  scene.onAllow = (wrote) => {
    if (wrote && left-- > 0) scene.allowed.delete("/two 7");
  };
  await scanFolders(scene);
  assert.deepEqual([scene.allowed.has("/two 7"), scene.log.of("access-extended").length], [true, 1]);
});
