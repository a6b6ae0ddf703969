// npm run check: everything that can be known without privileges, in the order of how fast it says no.
import { spawnSync } from "node:child_process";
import { existsSync, globSync } from "node:fs";

const folders = ["src", "sandbox", "test", "tools", "bench"].filter((folder) => existsSync(folder));
const steps: readonly (readonly [string, readonly string[]])[] = [
  ["biome", ["check", "--error-on-warnings", "."]],
  ["tsc", []],
  [process.execPath, ["tools/gen.ts", "--check"]],
  ["depcruise", ["--config", ".dependency-cruiser.cjs", ...folders]],
  [
    process.execPath,
    ["--test", "--test-reporter=dot", ...globSync("{src,tools,sandbox}/**/*.test.ts"), ...globSync("test/*.test.ts")],
  ],
];

for (const [command, args] of steps) {
  const startedAt = performance.now();
  const done = spawnSync(command, args, { stdio: "inherit" });
  if (done.status !== 0) {
    process.stderr.write(`check: ${command} ${args.slice(0, 2).join(" ")} failed\n`);
    process.exit(1);
  }
  process.stderr.write(`check: ${command.split("/").at(-1)} ${Math.round(performance.now() - startedAt)} ms\n`);
}
