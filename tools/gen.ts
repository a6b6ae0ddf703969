// npm run gen: writes src/gen from proto/, and the README's table from src/config.ts. With --check it writes elsewhere and says which files
// are not what proto/ gives.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { writeReadme } from "./readme.ts";

const home = "src/gen";

/** Generates all of proto/ into `<folder>/src/gen` and returns that path. */
function generate(folder: string): string {
  const done = spawnSync("buf", ["generate", "--template", "proto/buf.gen.yaml", "--output", folder], {
    stdio: "inherit",
  });
  if (done.status !== 0) {
    process.stderr.write(`gen: buf generate ended with ${done.status ?? done.error?.message}\n`);
    process.exit(1);
  }
  return join(folder, home);
}

/** Names of the files that differ, or that only one side has. */
function differences(desired: string, found: string): string[] {
  const names = new Set([...readdirSync(desired), ...(existsSync(found) ? readdirSync(found) : [])]);
  const text = (folder: string, name: string) =>
    existsSync(join(folder, name)) ? readFileSync(join(folder, name), "utf8") : undefined;
  return [...names].filter((name) => name.endsWith("_pb.ts") && text(desired, name) !== text(found, name)).sort();
}

if (process.argv.includes("--check")) {
  mkdirSync("node_modules", { recursive: true });
  const folder = mkdtempSync(join("node_modules", ".gen-"));
  try {
    const stale = differences(generate(folder), home);
    if (stale.length > 0) {
      process.stderr.write(`gen: not what proto/ gives: ${stale.join(", ")}. Run npm run gen and commit\n`);
      process.exitCode = 1;
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
} else {
  rmSync(home, { recursive: true, force: true });
  generate(".");
  writeReadme();
}
