// npm run interop: peers written in Go, on the libraries that NSM, SPIRE and kubelet use, play against the forwarder's process.
// `npm run interop -- Rotations Load` runs only the tests whose name holds one of the words.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { has, promisedOf } from "../test/needs.ts";
import { runtimeFlags } from "../tools/bundle-options.ts";
import { bundleProgram } from "../tools/bundle-program.ts";
import { fence } from "../tools/fence.ts";
import { addCounts, closingLine, type TestCounts } from "../tools/test-counts.ts";
import { runGoTests } from "./go-tests.ts";

const root = join(import.meta.dirname, "..");
const modules = ["interop", "interop/kubelet"];
const print = (line: string) => process.stderr.write(`${line}\n`);

const missing = (["go", "netns", "veth", "bridge"] as const).filter((need) => !has(need));
const isPromised = promisedOf(missing).length > 0;
if (missing.length > 0) {
  print(`${isPromised ? "✖" : "skipped:"} the peers in Go need ${missing.join(", ")}, and this machine has it not`);
  const why = `needs ${missing.join(", ")}`;
  end({ passed: 0, failed: isPromised ? 1 : 0, skips: isPromised ? [] : [{ name: "interop", why }] });
} else if (spawnSync("buf", ["generate"], { cwd: join(root, "interop"), stdio: "inherit" }).status !== 0) {
  print("✖ cannot generate the messages for Go: see above. Is the Go module proxy reachable (go env GOPROXY)?");
  end({ passed: 0, failed: 1, skips: [] });
} else if (!modules.every(fetched)) {
  print("✖ cannot fetch the Go modules: see above. Is the Go module proxy reachable (go env GOPROXY)?");
  end({ passed: 0, failed: 1, skips: [] });
} else {
  end(addCounts(formatted(), await play()));
}

/** What the module's tests are built from is on this machine afterwards: a download that fails is no failed test of ours. */
function fetched(module: string): boolean {
  const list = ["list", "-deps", "-test", "./..."];
  return spawnSync("go", list, { cwd: join(root, module), stdio: ["ignore", "ignore", "inherit"] }).status === 0;
}

/** The Go files as gofmt has them, as a test of its own. */
function formatted(): TestCounts {
  const { stdout, status } = spawnSync("gofmt", ["-l", "interop"], { cwd: root, encoding: "utf8" });
  const isSo = status === 0 && stdout === "";
  print(isSo ? "✔ gofmt" : `✖ gofmt -w would change: ${stdout.trim().split("\n").join(", ")}`);
  return { passed: isSo ? 1 : 0, failed: isSo ? 0 : 1, skips: [] };
}

async function play(): Promise<TestCounts> {
  const program = await bundleProgram(root, "interop/forwarder.ts");
  const killable = await bundleProgram(root, "sandbox/process/forwarder-process.ts");
  const chains = await bundleProgram(root, "interop/chains.ts");
  const texts = await bundleProgram(root, "interop/texts.ts");
  const env = {
    INTEROP_FORWARDER: program,
    INTEROP_KILLABLE_PROGRAM: killable,
    INTEROP_CHAINS: chains,
    INTEROP_TEXTS: texts,
    INTEROP_NODE: process.execPath,
    INTEROP_NODE_FLAGS: runtimeFlags.join(" "),
  };
  const common = { fence: fence(print), env, words: process.argv.slice(2), print };
  const counts: TestCounts[] = [];
  // One after the other: what the first leaves of the machine's time is little.
  for (const module of modules) counts.push(await runGoTests({ ...common, folder: join(root, module) }));
  return addCounts(...counts);
}

function end(counts: TestCounts): void {
  process.stdout.write(`${closingLine(counts)}\n`);
  process.exitCode = counts.failed > 0 ? 1 : 0;
}
