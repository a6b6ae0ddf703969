// Runs one of the project's commands on Node 24, installing first what is missing. Plain JavaScript that Node 20 can run:
// nothing is installed and no newer Node is there when this file starts.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const wantedMajor = 24;

/**
 * Installs the packages of one folder from its lock file, unless the installed ones are already those of that lock file.
 * `npm ci` would refuse: some registries lack optional packages of other platforms, and npm then leaves them out of the lock.
 */
function install(folder, what) {
  const lock = readFileSync(join(folder, "package-lock.json"));
  const digest = createHash("sha256").update(lock).digest("hex");
  const stamp = join(folder, "node_modules", ".installed-lock");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === digest) return;
  process.stderr.write(`Installing ${what} …\n`);
  const done = spawnSync(
    "npm",
    ["install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
    {
      cwd: folder,
      stdio: ["ignore", 2, 2],
    },
  );
  if (done.status !== 0) {
    process.stderr.write(
      `Cannot install ${what}: npm install ended with ${done.status ?? done.error?.message}. Is the npm registry reachable?\n`,
    );
    process.exit(1);
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
    process.stderr.write(
      `Cannot run: no Node ${wantedMajor} for linux-${process.arch} in the npm registry; install Node ${wantedMajor} or newer\n`,
    );
    process.exit(1);
  }
  return binary;
}

const [entry, ...args] = process.argv.slice(2);
install(root, "dependencies");
const node = nodeBinary();
const env = {
  ...process.env,
  PATH: `${dirname(node)}:${join(root, "node_modules", ".bin")}:${process.env.PATH ?? ""}`,
};
const child = spawn(node, ["--disable-warning=ExperimentalWarning", join(root, entry), ...args], {
  cwd: root,
  env,
  stdio: "inherit",
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
child.on("exit", (code, signal) => process.exit(code ?? (signal ? 130 : 1)));
