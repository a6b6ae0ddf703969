import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** What Node has compiled before: of each start's processor time it saves more than half. */
const { NODE_COMPILE_CACHE = "" } = process.env;

/** Runs the program with nothing of its own in its environment but this, in a folder of its own with an empty PF configuration. */
async function ran(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
  act: (child: ChildProcess, output: () => string) => void = () => {},
): Promise<Ended> {
  const folder = mkdtempSync(join(tmpdir(), "forwarder-"));
  writeFileSync(join(folder, "pci.config"), "physicalFunctions: {}\n");
  const own = { NSM_STATE_PATH: join(folder, "state"), NSM_ADMIN_LISTEN_ON: "localhost:0" };
  const child = spawn(process.execPath, [join(import.meta.dirname, "main.ts"), ...args], {
    cwd: folder,
    env: { NODE_COMPILE_CACHE, ...own, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (data: Buffer) => {
    stdout += data;
  });
  child.stderr.on("data", (data: Buffer) => {
    stderr += data;
    act(child, () => stderr);
  });
  try {
    const [code] = (await once(child, "close")) as [number | null];
    return { code, stdout, stderr };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const agent = { SPIFFE_ENDPOINT_SOCKET: "unix:///nowhere/agent.sock" };

test("main prints its version on standard output", async () => {
  const { code, stdout } = await ran(["--version"], {});
  assert.equal(code, 0);
  assert.match(stdout, /^forwarder \d+\.\d+\.\d+\n$/);
});

test("main ends with 2 at a command line that makes no sense", async () => {
  const { code, stderr } = await ran(["discovre"], {});
  assert.deepEqual([code, stderr], [2, 'forwarder: there is no command "discovre"; see forwarder --help\n']);
});

test("main runs a command with what the environment says, and ends with its code", async () => {
  const { code, stdout } = await ran(["check", "--json", "-m", "KERNEL"], { TELEMETRY: "perhaps" });
  const { findings, works } = JSON.parse(stdout) as { findings: { what: string }[]; works: unknown };
  assert.deepEqual([code, works], [1, { KERNEL: false }]);
  assert.ok(
    findings.some(({ what }) => /^TELEMETRY is "perhaps"/.test(what)),
    stdout,
  );
  assert.ok(
    findings.some(({ what }) => /pci\.config lists no physical function/.test(what)),
    stdout,
  );
});

test("main says why it cannot print, and ends with 1", () => {
  const full = openSync("/dev/full", "w");
  try {
    const main = join(import.meta.dirname, "main.ts");
    const { status, stderr } = spawnSync(process.execPath, [main, "--version"], {
      env: { NODE_COMPILE_CACHE },
      stdio: ["ignore", full, "pipe"],
      encoding: "utf8",
    });
    assert.equal(status, 1);
    assert.match(stderr, /^Cannot write to standard output: .*ENOSPC/m);
  } finally {
    closeSync(full);
  }
});

test("main ends with 1 and names every wrong variable", async () => {
  const { code, stderr } = await ran([], { NSM_DIAL_TIMEOUT: "50", TELEMETRY: "perhaps" });
  assert.equal(code, 1);
  for (const name of ["NSM_DIAL_TIMEOUT", "TELEMETRY", "SPIFFE_ENDPOINT_SOCKET"])
    assert.match(stderr, new RegExp(name));
});

test("main ends with 1 when there is no PF configuration, and names the file", async () => {
  const { code, stderr } = await ran([], { ...agent, NSM_SRIOV_CONFIG_FILE: "/nowhere/pci.config" });
  assert.equal(code, 1);
  assert.match(stderr, /"start-failed".*\/nowhere\/pci\.config/);
});

/** Who debugs the tests may debug the program that this one starts: README.md, "Debugging". */
const { DLV_LISTEN_FORWARDER = "" } = process.env;

test("main waits for its SPIRE agent, changes its log level at SIGUSR1, and ends with 0 at SIGTERM", async () => {
  const sent = new Set<NodeJS.Signals>();
  const send = (child: ChildProcess, signal: NodeJS.Signals) => {
    if (!sent.has(signal)) child.kill(signal);
    sent.add(signal);
  };
  const { code, stderr } = await ran([], { ...agent, DLV_LISTEN_FORWARDER }, (child, output) => {
    if (output().includes("svid-awaited")) send(child, "SIGUSR1");
    if (output().includes('"to":"trace"')) send(child, "SIGUSR2");
    if (output().includes('"to":"info"')) send(child, "SIGTERM");
  });
  assert.deepEqual([code, sent.size], [0, 3], stderr);
  assert.match(stderr, /"event":"configuration","NSM_NAME":"sriov-forwarder"/);
});

test("main has threads enough for files beside links that move", async () => {
  const threads: string[] = [];
  await ran([], agent, ({ pid }, output) => {
    if (!output().includes("svid-awaited") || threads.length > 0) return;
    for (const id of readdirSync(`/proc/${pid}/task`)) {
      threads.push(readFileSync(`/proc/${pid}/task/${id}/comm`, "utf8").trim());
    }
    process.kill(pid ?? 0, "SIGTERM");
  });
  assert.equal(threads.filter((name) => name === "libuv-worker").length, 32, threads.join(" "));
});

test("main serves metrics of its process beside the forwarder's", async () => {
  let metrics: Promise<string> | undefined;
  await ran([], agent, (child, output) => {
    const url = /"event":"status-page","url":"([^"]*)"/.exec(output())?.[1];
    if (url === undefined || metrics !== undefined) return;
    metrics = fetch(`${url}/metrics`, { headers: { connection: "close" } }).then((answer) => answer.text());
    void metrics.finally(() => child.kill("SIGTERM"));
  });
  for (const name of ["nodejs_eventloop_lag_p99_seconds", "process_resident_memory_bytes", "nsm_sriov_ready"])
    assert.match((await metrics) ?? "", new RegExp(`^${name} [0-9.e-]+$`, "m"));
});

test("main opens the debugger before anything else, says where, and waits for it", async () => {
  let debugged = "";
  const { stderr } = await ran([], { ...agent, DLV_LISTEN_FORWARDER: "localhost:0" }, (child, output) => {
    debugged = /"url":"(ws:[^"]*)"/.exec(output())?.[1] ?? "";
    if (debugged !== "") child.kill("SIGKILL");
  });
  assert.match(debugged, /^ws:\/\/127\.0\.0\.1:\d+\//);
  assert.doesNotMatch(stderr, /"event":"starting"/);
});

test("main says early how to request a debugger", async () => {
  const { stderr } = await ran([], agent, (child, output) => {
    if (output().includes('"starting"')) child.kill("SIGTERM");
  });
  assert.match(stderr.split("\n")[0] ?? "", /DLV_LISTEN_FORWARDER/);
});
