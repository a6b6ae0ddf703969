// Runs one of the project's commands on Node 24, installing first what is missing; without a command it only installs. Plain JavaScript that Node 20 can run:
// nothing is installed and no newer Node is there when this file starts.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { constants as access, accessSync, existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const wantedMajor = 24;

/** Installs exactly what the lock file of the folder holds, unless the installed packages are already those. */
function install(folder, what) {
  const lock = readFileSync(join(folder, "package-lock.json"));
  const digest = createHash("sha256").update(lock).digest("hex");
  const stamp = join(folder, "node_modules", ".installed-lock");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === digest) return;
  try {
    accessSync(folder, access.W_OK);
  } catch {
    fail(`Cannot install ${what}: ${folder} cannot be written to; run the command in a copy of the project that can`);
  }
  process.stderr.write(`Installing ${what} …\n`);
  const args = ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];
  const done = spawnSync("npm", args, { cwd: folder, stdio: ["ignore", 2, 2] });
  if (done.error?.code === "ENOENT") fail(`Cannot install ${what}: there is no npm on the PATH; it comes with Node`);
  if (done.signal) process.exit(128 + constants.signals[done.signal]);
  if (done.status !== 0) {
    const why = done.error?.message ?? `npm ci ended with ${done.status}`;
    fail(`Cannot install ${what}: ${why}. Is the npm registry reachable (npm ping)?`);
  }
  writeFileSync(stamp, digest);
}

/** The node binary to run on: this one if it is new enough, else one from npm that needs no install script. */
function nodeBinary() {
  if (Number(process.versions.node.split(".")[0]) >= wantedMajor) return process.execPath;
  const folder = join(root, "tools", "runtime");
  install(folder, `Node ${wantedMajor} (this machine has ${process.versions.node})`);
  const binary = join(folder, "node_modules", `node-linux-${process.arch}`, "bin", "node");
  if (!existsSync(binary) || !statSync(binary).isFile()) {
    fail(
      `Cannot run: no Node ${wantedMajor} for linux-${process.arch} in the npm registry; install Node ${wantedMajor} or newer`,
    );
  }
  return binary;
}

function fail(why) {
  process.stderr.write(`${why}\n`);
  process.exit(1);
}

const [entry, ...args] = process.argv.slice(2);
if (process.platform !== "linux") fail(`Cannot run on ${process.platform}: the forwarder and its tests are for Linux`);
install(root, "dependencies");
const node = nodeBinary();
if (entry === undefined) process.exit(0);
const env = {
  ...process.env,
  PATH: `${dirname(node)}:${join(root, "node_modules", ".bin")}:${process.env.PATH ?? ""}`,
};
const child = spawn(node, ["--disable-warning=ExperimentalWarning", join(root, entry), ...args], {
  cwd: root,
  env,
  stdio: "inherit",
});
child.on("error", (error) => fail(`Cannot run ${node}: ${error.message}`));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"]) {
  process.on(signal, () => {
    // Ctrl-C reaches the child by itself: a terminal signals all its processes, and a second signal would mean "at once".
    const isFromTerminal = process.stdin.isTTY && (signal === "SIGINT" || signal === "SIGQUIT");
    if (!isFromTerminal) child.kill(signal);
  });
}
child.on("exit", (code, signal) => process.exit(code ?? 128 + constants.signals[signal]));
