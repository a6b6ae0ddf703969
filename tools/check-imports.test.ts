import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import test from "node:test";
import { type ImportProblems, importProblems } from "./check-imports.ts";

/** A small project with every module, which keeps the rule. */
const clean: Readonly<Record<string, string>> = {
  "src/async/index.ts": 'export { a } from "./a.ts";',
  "src/async/a.ts": "export const a = 1;",
  "src/telemetry/index.ts": 'export { log } from "./log.ts";',
  "src/telemetry/log.ts": 'import pino from "pino"; export const log = pino;',
  "src/gen/x_pb.ts": "export const x = 1;",
  "src/kernel/index.ts": 'export { k } from "./k.ts";',
  "src/kernel/k.ts": 'import { a } from "../async/index.ts"; export const k = a;',
  "src/pci/index.ts": 'export { s } from "./s.ts";',
  "src/pci/s.ts": 'import { k } from "../kernel/index.ts"; export const s = k;',
  "src/inventory/index.ts": 'export { v } from "./v.ts";',
  "src/inventory/v.ts": 'import { s } from "../pci/index.ts"; export const v = s;',
  "src/netdev/index.ts": 'export { n } from "./n.ts";',
  "src/netdev/n.ts": 'import { k } from "../kernel/index.ts"; export const n = k;',
  "src/rpc/index.ts": 'export { r } from "./r.ts";',
  "src/rpc/r.ts": 'import { x } from "../gen/x_pb.ts"; export const r = x;',
  "src/rpc/transport.ts": "export const transport = 1;",
  "src/rpc/http2/transport.ts": 'import { t } from "./tls.ts"; export const http2 = t;',
  "src/rpc/http2/tls.ts":
    'import "node:http2"; import { transport } from "../transport.ts"; export const t = transport;',
  "src/rpc/server.ts": 'import { http2 } from "./http2/transport.ts"; export const server = http2;',
  "src/identity/index.ts": 'export { i } from "./i.ts";',
  "src/identity/i.ts": 'import { r } from "../rpc/index.ts"; export const i = r;',
  "src/kubelet/index.ts": 'export { u } from "./u.ts";',
  "src/kubelet/u.ts": 'import { r } from "../rpc/index.ts"; export const u = r;',
  "src/nsm/index.ts": 'export { m } from "./m.ts";',
  "src/nsm/m.ts": 'import { s } from "../pci/index.ts"; export const m = s;',
  "src/nsm/request/c.ts": "export const c = 1;",
  "src/nsm/testing/cast.ts": 'import { s } from "../../pci/index.ts"; export const cast = s;',
  "src/nsm/m.test.ts": 'import "./testing/cast.ts"; import "../telemetry/recording-log.ts";',
  "src/telemetry/recording-log.ts": "export const record = 1;",
  "src/kernel/testing/card.ts": 'import { k } from "../k.ts"; export const card = k;',
  "src/config.ts": "export const c = 1; export type C = number;",
  "src/composition/c.ts": 'import { m } from "../nsm/index.ts"; export const c = m;',
  "src/forwarder.ts":
    'import type { C } from "./config.ts"; import { c } from "./composition/c.ts"; export const f: C = c;',
  "src/process/p.ts": 'import "../forwarder.ts";',
  "src/main.ts": 'import "./config.ts"; import "./process/p.ts";',
  "sandbox/machine.ts": 'import { k } from "../src/kernel/index.ts"; export const machine = k;',
  "test/sandbox/a.test.ts": 'import "../../sandbox/machine.ts";',
};

/** Each breaks the rule in one way; the file stands beside the clean ones. */
const violations: readonly { readonly says: string; readonly path: string; readonly text: string }[] = [
  { says: "upward", path: "src/kernel/v1.ts", text: 'import "../pci/index.ts";' },
  {
    says: "upward, only a type",
    path: "src/kernel/v2.ts",
    text: 'import type { s } from "../pci/index.ts"; export type S = typeof s;',
  },
  {
    says: "a folder of nsm to one above it",
    path: "src/nsm/endpoint/v31.ts",
    text: 'import type { c } from "../request/c.ts"; export type C = typeof c;',
  },
  { says: "nsm to the kernel", path: "src/nsm/v3.ts", text: 'import "../kernel/index.ts";' },
  { says: "past a door, from a module", path: "src/pci/v4.ts", text: 'import "../kernel/k.ts";' },
  { says: "past a door, from the sandbox", path: "sandbox/v5.ts", text: 'import "../src/kernel/k.ts";' },
  { says: "node:fs", path: "src/pci/v6.ts", text: 'import "node:fs";' },
  { says: "node:fs/promises", path: "src/kernel/v7.ts", text: 'import "node:fs/promises";' },
  { says: "node:net", path: "src/kernel/v8.ts", text: 'import "node:net";' },
  { says: "child processes", path: "src/kernel/v9.ts", text: 'import "node:child_process";' },
  { says: "native calls", path: "src/rpc/v10.ts", text: 'import "koffi";' },
  { says: "YAML", path: "src/nsm/v11.ts", text: 'import "yaml";' },
  { says: "a cycle of types", path: "src/rpc/v12.ts", text: 'import type { B } from "./v12b.ts"; export type A = B;' },
  { says: "own door", path: "src/rpc/v13.ts", text: 'import "./index.ts";' },
  { says: "a module that the rule does not know", path: "src/utils/v14.ts", text: 'import "../async/index.ts";' },
  { says: "the lab into a module", path: "lab/v15.ts", text: 'import "../src/kernel/index.ts";' },
  { says: "production to the sandbox", path: "src/rpc/v16.ts", text: 'import "../../sandbox/machine.ts";' },
  { says: "a module to the composition root", path: "src/nsm/v17.ts", text: 'import "../forwarder.ts";' },
  {
    says: "a module to the configuration",
    path: "src/nsm/v18.ts",
    text: 'import type { C } from "../config.ts"; export type D = C;',
  },
  { says: "pci to the inventory of its VFs", path: "src/pci/v30.ts", text: 'import "../inventory/index.ts";' },
  { says: "a module to what is above it", path: "src/rpc/v26.ts", text: 'import "../composition/c.ts";' },
  { says: "past a door, from the composition", path: "src/composition/v27.ts", text: 'import "../kernel/k.ts";' },
  { says: "the composition to the process", path: "src/composition/v28.ts", text: 'import "../process/p.ts";' },
  { says: "the process past the forwarder", path: "src/process/v29.ts", text: 'import "../composition/c.ts";' },
  { says: "a file that is missing", path: "src/rpc/v19.ts", text: 'import "./nowhere.ts";' },
  { says: "gRPC outside its module", path: "src/nsm/v20.ts", text: 'import "@grpc/grpc-js";' },
  { says: "node:http", path: "src/rpc/v21.ts", text: 'import "node:http";' },
  { says: "calls to HTTP/2", path: "src/rpc/v30.ts", text: 'import "node:http2";' },
  { says: "calls past their transport", path: "src/rpc/v31.ts", text: 'import "./http2/tls.ts";' },
  { says: "a transport to calls", path: "src/rpc/http2/v32.ts", text: 'import "../server.ts";' },
  { says: "a fake into production", path: "src/nsm/v23.ts", text: 'import "./testing/cast.ts";' },
  { says: "a fake of another module", path: "src/nsm/v24.ts", text: 'import "../kernel/testing/card.ts";' },
  { says: "a record through a door", path: "src/telemetry/v25.ts", text: 'export * from "./recording-log.ts";' },
  { says: "modules that must not know each other", path: "src/netdev/v22.ts", text: 'import "../pci/index.ts";' },
];

/** Writes the files into a folder with the project's own rule and packages, and checks them. */
async function problemsOf(files: Readonly<Record<string, string>>): Promise<ImportProblems> {
  const root = mkdtempSync(join(tmpdir(), "modules-"));
  try {
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(join(root, dirname(path)), { recursive: true });
      writeFileSync(join(root, path), `${text}\n`);
    }
    mkdirSync(join(root, "tools"), { recursive: true });
    for (const path of [".dependency-cruiser.cjs", "tools/modules.cjs", "package.json"]) cpSync(path, join(root, path));
    symlinkSync(resolve("node_modules"), join(root, "node_modules"));
    return await importProblems(root);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

test("importProblems() has nothing against a project that keeps the rule", async () => {
  assert.deepEqual((await problemsOf(clean)).broken, []);
});

test("importProblems() finds each violation and nothing else", async () => {
  const broken = Object.fromEntries(violations.map(({ path, text }) => [path, text]));
  const partner = { "src/rpc/v12b.ts": 'import type { A } from "./v12.ts"; export type B = A;' };
  const problems = (await problemsOf({ ...clean, ...broken, ...partner })).broken;
  const missed = violations.filter(({ path }) => !problems.some((problem) => problem.startsWith(`${path} imports`)));
  assert.deepEqual(
    missed.map(({ says }) => says),
    [],
  );
  const innocent = problems.filter((problem) => !/\/v\d+b?\.ts imports/.test(problem));
  assert.deepEqual(innocent, []);
});

test("importProblems() names allowances that no import uses", async () => {
  const { stale } = await problemsOf(clean);
  const ofNsm = stale.filter((sentence) => sentence.includes("nsm may import"));
  assert.ok(ofNsm.includes("tools/modules.cjs: nsm may import netdev and does not: take it out"), ofNsm.join("\n"));
  assert.ok(!ofNsm.some((sentence) => sentence.includes("sriov")), ofNsm.join("\n"));
});
