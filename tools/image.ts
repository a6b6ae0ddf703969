// npm run image: builds the container image without a Docker engine, by buildah, and proves that it works: the program starts in
// it, and with --test all tests pass in the target `test`. Root and Debian's packages buildah, crun and mmdebstrap are needed.
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { proveDebugger } from "./image-debugger.ts";

const { values } = parseArgs({
  options: { base: { type: "string" }, tag: { type: "string" }, test: { type: "boolean" } },
});
const tag = values.tag ?? "localhost/cmd-forwarder-sriov";
/** What this machine trusts, for the registries that it reaches; the base alone gets it, never the runtime image. */
const CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt";

try {
  await image();
} catch (error) {
  print(`image: ${(error as Error).message}`);
  process.exitCode = 1;
}

async function image(): Promise<void> {
  const base = values.base ?? makeBase();
  const startedAt = performance.now();
  build(base, "runtime", tag);
  print(`built ${tag} in ${Math.round((performance.now() - startedAt) / 1000)} s, ${sizeOf(tag)}`);
  await smoke();
  if (values.test) await test(base);
}

/** Runs buildah and returns its output; the process ends where that fails. */
function buildah(...args: readonly string[]): string {
  return run("buildah", ["--storage-driver", "vfs", ...args]);
}

function run(command: string, args: readonly string[]): string {
  const done = spawnSync(command, args, { encoding: "utf8", maxBuffer: 64 * 1024 * 1024 });
  if (done.status === 0) return done.stdout.trim();
  const why = done.error
    ? `${done.error.message}; is the package ${command} installed?`
    : tail(done.stdout + done.stderr);
  throw new Error(`cannot run ${command} ${args.join(" ")}: ${why}`);
}

function tail(output: string): string {
  return output.split("\n").slice(-40).join("\n");
}

/** A Debian with this process's Node and npm, as the base of node:24-bookworm-slim is. Kept for the next time. */
function makeBase(): string {
  const name = `localhost/forwarder-base:${process.versions.node}`;
  if (buildah("images", "--format", "{{.Name}}:{{.Tag}}").split("\n").includes(name)) return name;
  const folder = mkdtempSync(join(tmpdir(), "forwarder-base-"));
  try {
    const root = join(folder, "root");
    run("mmdebstrap", ["--variant=minbase", "--include=ca-certificates", "bookworm", root]);
    cpSync(process.execPath, join(root, "usr/local/bin/node"));
    const npm = dirname(dirname(realpathSync(run("sh", ["-c", "command -v npm"]))));
    cpSync(npm, join(root, "usr/local/lib/node_modules/npm"), { recursive: true, dereference: true });
    symlinkSync("../lib/node_modules/npm/bin/npm-cli.js", join(root, "usr/local/bin/npm"));
    cpSync(CERTIFICATES, join(root, CERTIFICATES));
    const container = buildah("from", "scratch");
    buildah("add", container, root, "/");
    const trust = ["NODE_EXTRA_CA_CERTS", "npm_config_cafile"].flatMap((key) => ["--env", `${key}=${CERTIFICATES}`]);
    buildah(
      "config",
      ...trust,
      "--env",
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      container,
    );
    buildah("commit", "--rm", container, name);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return name;
}

function build(base: string, target: string, name: string): void {
  const from = ["--build-arg", `NODE_IMAGE=${base}`];
  // One time for all files: the same sources and the same base give the same image id.
  buildah("build", "--isolation", "chroot", "--timestamp", "0", ...from, "--target", target, "--tag", name, ".");
}

function sizeOf(name: string): string {
  return buildah("images", "--format", "{{.Size}}", name);
}

/** The program answers in the image, and nothing is there that could help an intruder. */
async function smoke(): Promise<void> {
  const container = buildah("from", tag);
  try {
    const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };
    const inside = (...args: string[]) => buildah("run", "--isolation", "chroot", container, "--", ...args);
    const output = inside("/bin/forwarder", "--version");
    if (output !== `forwarder ${version}`)
      throw new Error(`the program in the image says "${output}", not its version ${version}`);
    const root = buildah("mount", container);
    const found = run("find", [
      root,
      "-regex",
      String.raw`.*/\(sh\|bash\|dash\|npm\|npx\|apt\|apt-get\|dpkg\|cc\|gcc\|ld\|gdb\|strace\)`,
    ]);
    if (found !== "") throw new Error(`the image holds what it does not need: ${found}`);
    const env = { DLV_LISTEN_FORWARDER: "localhost:50000", SPIFFE_ENDPOINT_SOCKET: "unix:///nowhere/agent.sock" };
    const command = inContainer(container, ["/bin/forwarder"], env);
    await proveDebugger({ command, port: 50_000, says: /"event":"starting"/ });
    print(`${output} runs in ${tag}: ${run("find", [root, "-type", "f"]).split("\n").length} files, no shell`);
  } finally {
    buildah("rm", container);
  }
}

/** `buildah run` in the container, in words. */
function inContainer(
  container: string,
  words: readonly string[],
  env: Readonly<Record<string, string>> = {},
): readonly string[] {
  const variables = Object.entries(env).flatMap(([key, value]) => ["--env", `${key}=${value}`]);
  return [
    "buildah",
    "--storage-driver",
    "vfs",
    "run",
    "--isolation",
    "chroot",
    ...variables,
    container,
    "--",
    ...words,
  ];
}

/** What the image runs by default. */
function commandOf(name: string): readonly string[] {
  const { OCIv1 } = JSON.parse(buildah("inspect", "--type", "image", name)) as { OCIv1: { config: { Cmd: string[] } } };
  return OCIv1.config.Cmd;
}

/**
 * The target `debug` waits for a debugger; the tests of the target `test`, which it is made from, pass with what
 * `docker run --privileged` would give.
 */
async function test(base: string): Promise<void> {
  const name = `${tag}-debug`;
  build(base, "debug", name);
  const limit = run("sh", ["-c", "ulimit -Hn"]);
  const container = buildah("from", "--ulimit", `nofile=${limit}:${limit}`, name);
  try {
    await proveDebugger({ command: inContainer(container, commandOf(name)), port: 40_000, says: /^✔ /m });
    print(`${name} waits for a debugger on port 40000, then runs the tests`);
    const all = capabilities().flatMap((capability) => ["--cap-add", capability]);
    // buildah mounts these two read-only whatever its options; an engine's privileged container can write there.
    const script =
      "mount -o remount,rw,bind /proc/sys && mount -o remount,rw,bind /sys && exec node tools/run.mjs tools/test.ts";
    const args = [
      "--storage-driver",
      "vfs",
      "run",
      "--isolation",
      "chroot",
      ...all,
      container,
      "--",
      "sh",
      "-c",
      script,
    ];
    const done = spawnSync("buildah", args, { stdio: ["ignore", "inherit", "inherit"] });
    if (done.status !== 0) throw new Error("the tests failed in the image");
  } finally {
    buildah("rm", container);
  }
}

/** Those of this process, by name: an engine gives a privileged container all that it has. */
function capabilities(): readonly string[] {
  const bounding = BigInt(
    `0x${/^CapBnd:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0"}`,
  );
  const words = run("capsh", [`--decode=${bounding.toString(16)}`]).split("=")[1] ?? "";
  return words.split(",").map((word) => word.toUpperCase());
}

function print(line: string): void {
  process.stderr.write(`${line}\n`);
}
