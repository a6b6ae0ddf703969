// The manifests against Kubernetes' own schema, the forwarder's variables and its listener, and one against the other.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import test from "node:test";
import { parse, parseAllDocuments } from "yaml";
import { parseConfig } from "../src/config.ts";
import { parsePfConfig } from "../src/pci/index.ts";
import { needs } from "./needs.ts";

const BASE = "deploy/kustomize/base";
const CHART = "deploy/helm/forwarder-sriov";

interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string };
}
interface Container {
  readonly env: readonly { readonly name: string; readonly value?: string }[];
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[];
  readonly securityContext: Readonly<Record<string, unknown>>;
  readonly [probe: `${string}Probe`]: { readonly httpGet: { readonly port: number; readonly path: string } };
}
interface Daemon extends Manifest {
  readonly spec: {
    readonly template: {
      readonly spec: {
        readonly containers: readonly [Container];
        readonly volumes: readonly { readonly name: string; readonly hostPath?: { readonly path: string } }[];
      };
    };
  };
}

const daemonText = readFileSync(`${BASE}/daemonset.yaml`, "utf8");
const daemon = parse(daemonText, { merge: true }) as Daemon;

/** Kubernetes' own schema, compiled to a function. */
interface Schema {
  validate: ((manifest: unknown) => boolean) & { errors?: readonly { instancePath: string; message: string }[] | null };
}
const schemas = createRequire(import.meta.resolve("kubernetes-models"));
const schemaOf = (type: string) => schemas(`./_schemas/IoK8sApi${type}.js`) as Schema;
const kinds: Readonly<Record<string, Schema>> = {
  DaemonSet: schemaOf("AppsV1DaemonSet"),
  ConfigMap: schemaOf("CoreV1ConfigMap"),
};

/** One sentence for each thing that Kubernetes would refuse or drop. */
function problemsOf(manifest: object): readonly string[] {
  const schema = kinds[(manifest as Manifest).kind];
  assert.ok(schema, `no schema for ${(manifest as Manifest).kind}`);
  const unread = new Set<string>();
  const isRight = schema.validate(watchReads(manifest, "", unread));
  if (!isRight) return (schema.validate.errors ?? []).map(({ instancePath, message }) => `${instancePath} ${message}`);
  return [...unread].map((path) => `${path} is no field that Kubernetes knows`);
}

/** The validators read each field that the schema has and no other, so a field that stays unread is a typing error. */
function watchReads(value: unknown, path: string, unread: Set<string>): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((item, at) => watchReads(item, `${path}/${at}`, unread));
  const shadow: Record<string, unknown> = {};
  for (const [key, item] of Object.entries(value)) {
    const own = `${path}/${key}`;
    unread.add(own);
    const watched = watchReads(item, own, unread);
    const get = () => {
      unread.delete(own);
      return watched;
    };
    Object.defineProperty(shadow, key, { enumerable: true, get });
  }
  return shadow;
}

test("the check of manifests finds a wrong type and a field that does not exist", () => {
  const wrong = JSON.parse(JSON.stringify(daemon).replace('"hostNetwork":true', '"hostNetwork":"yes"')) as object;
  assert.match(problemsOf(wrong).join(), /hostNetwork/);
  const unknown = JSON.parse(JSON.stringify(daemon).replace('"hostNetwork"', '"hostNetwrok"')) as object;
  assert.deepEqual(problemsOf(unknown), ["/spec/template/spec/hostNetwrok is no field that Kubernetes knows"]);
});

test("the kustomize base fits Kubernetes' schema", () => assert.deepEqual(problemsOf(daemon), []));

test("the DaemonSet sets variables that the forwarder reads, and registers for today's NSMgr", () => {
  const [container] = daemon.spec.template.spec.containers;
  const env = Object.fromEntries(container.env.map(({ name, value = "a-pod" }) => [name, value]));
  const { config, warnings } = parseConfig(env);
  assert.deepEqual([warnings, config.networkServices.includes("forwarder")], [[], true]);
  const mounts = container.volumeMounts.map(({ mountPath }) => mountPath);
  const paths = [config.statePath, config.cgroupPath, config.vfioPath, config.sriovConfigFile, config.devicePluginPath];
  for (const path of paths)
    assert.ok(
      mounts.some((mount) => path === mount || path.startsWith(`${mount}/`)),
      path,
    );
  const volumes = daemon.spec.template.spec.volumes.map(({ name }) => name);
  assert.deepEqual(container.volumeMounts.map(({ name }) => name).sort(), volumes.sort());
});

test("the probes ask what the forwarder serves by default", () => {
  const [container] = daemon.spec.template.spec.containers;
  const { adminListenOn } = parseConfig({ SPIFFE_ENDPOINT_SOCKET: "unix:///a.sock" }).config;
  for (const [probe, path] of Object.entries({ startup: "/healthz", liveness: "/healthz", readiness: "/readyz" })) {
    const { httpGet } = container[`${probe}Probe`] ?? assert.fail(probe);
    assert.deepEqual([httpGet.port, httpGet.path], [adminListenOn?.port, path]);
  }
});

test("the list of physical functions in the base is one that the forwarder reads", () => {
  assert.ok(parsePfConfig(readFileSync(`${BASE}/sriov.config`, "utf8"), "sriov.config"));
});

test("the kustomize overlays build, and what they build fits the schema", (t) => {
  if (!needs(t, "kustomize")) return;
  for (const overlay of ["base", "privileged"]) {
    const built = rendered("kustomize", "build", `deploy/kustomize/${overlay}`);
    assert.deepEqual(built.map(({ kind }) => kind).sort(), ["ConfigMap", "DaemonSet"]);
    for (const manifest of built) assert.deepEqual(problemsOf(manifest), []);
  }
});

test("the Helm chart gives the same DaemonSet as the kustomize base, and keeps its promises when values change", (t) => {
  if (!needs(t, "helm")) return;
  const helm = spawnSync("helm", ["version"]).status === 0 ? "helm" : "helm-render";
  const template = (...args: string[]) =>
    rendered(helm, "template", "x", CHART, "--kube-version", "1.30.0", "--namespace", "nsm-system", ...args);
  const sorted = ({ spec }: Daemon) => {
    const copy = structuredClone(spec) as unknown as {
      template: { spec: { containers: [{ env: { name: string }[] }] } };
    };
    copy.template.spec.containers[0].env.sort((a, b) => a.name.localeCompare(b.name));
    return copy;
  };
  const found = template();
  for (const manifest of found) assert.deepEqual(problemsOf(manifest), []);
  const own = found.find(({ kind }) => kind === "DaemonSet") as Daemon;
  assert.deepEqual(sorted(own), sorted(daemon));
  const pf = "pfConfig.physicalFunctions.0000:3b:00\\.0";
  const set = [
    `${pf}.pfKernelDriver=ice`,
    `${pf}.vfKernelDriver=iavf`,
    `${pf}.capabilities={10G}`,
    `${pf}.serviceDomains={a.b}`,
  ];
  const changed = template("--set", "privileged=true", ...set.flatMap((value) => ["--set", value]));
  for (const manifest of changed) assert.deepEqual(problemsOf(manifest), []);
  const list = changed.find(({ kind }) => kind === "ConfigMap") as unknown as { data: Record<string, string> };
  assert.ok(parsePfConfig(list.data["sriov.config"] ?? "", "sriov.config"));
  const refusal = (...args: string[]) =>
    spawnSync(helm, ["template", "x", CHART, ...args], { encoding: "utf8" }).stderr;
  assert.match(refusal("--kube-version", "1.30.0", "--set", "image.tga=1"), /tga/);
  assert.match(refusal("--kube-version", "1.29.0"), />=1\.30\.0/);
});

function rendered(command: string, ...args: readonly string[]): readonly Manifest[] {
  const done = spawnSync(command, args, { encoding: "utf8" });
  assert.equal(done.status, 0, done.stderr);
  return parseAllDocuments(done.stdout, { merge: true })
    .map((document) => document.toJS() as Manifest | null)
    .filter((manifest) => manifest !== null);
}
