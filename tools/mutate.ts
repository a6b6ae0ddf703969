// npm run mutate -- MODULE…: changes the code of modules of src (or of single files) bit by bit and says which changes no unit test
// noticed. Stryker does it, which only this command installs. A module takes minutes to hours: a second or more for each change.
import { spawnSync } from "node:child_process";
import { copyFileSync, globSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

const root = join(import.meta.dirname, "..");
/** Where Stryker is installed: beside the project's packages, where no check of the sources looks. */
const place = join(root, "node_modules", ".cache", "mutate");
const usage =
  "Use: npm run mutate -- MODULE|FILE…   for example: npm run mutate -- journal src/identity/verify-peer-chain.ts\n";

const words = process.argv.slice(2);
const unknown = words.filter((word) => sourceFiles(word).length === 0);
if (words.length === 0 || unknown.length > 0) {
  if (unknown.length > 0) process.stderr.write(`No module and no file of src is called ${unknown.join(", ")}\n`);
  process.stderr.write(usage);
  process.exit(2);
}
installStryker();
const files = words.flatMap(sourceFiles);
const folders = [...new Set(files.map((file) => dirname(file)))];
const config = join(place, "stryker.json");
writeFileSync(config, JSON.stringify(strykerOptions(files, folders.flatMap(testFiles))));
const stryker = join(place, "node_modules", "@stryker-mutator", "core", "bin", "stryker.js");
process.exitCode = spawnSync(process.execPath, [stryker, "run", config], { cwd: root, stdio: "inherit" }).status ?? 1;

/** Of a module's name all its source files, of a file's path that file; none where there is no such thing. */
function sourceFiles(word: string): readonly string[] {
  const found = globSync(word.endsWith(".ts") ? word : `src/${word}/**/*.ts`, { cwd: root }).sort();
  return found.filter((file) => file.startsWith("src/") && !/\.test\.ts$|\/index\.ts$|^src\/gen\//.test(file));
}

function testFiles(folder: string): readonly string[] {
  return globSync(`${folder}/*.test.ts`, { cwd: root }).sort();
}

/** Installs what the lock file in tools/mutate holds. */
function installStryker(): void {
  mkdirSync(place, { recursive: true });
  for (const file of ["package.json", "package-lock.json"]) {
    copyFileSync(join(root, "tools", "mutate", file), join(place, file));
  }
  const install = ["ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  if (spawnSync("npm", install, { cwd: place, stdio: "inherit" }).status === 0) return;
  process.stderr.write("Cannot install the mutation tester. Is the npm registry reachable (npm ping)?\n");
  process.exit(1);
}

function strykerOptions(mutate: readonly string[], tests: readonly string[]): object {
  return {
    mutate,
    testRunner: "tap",
    plugins: [join(place, "node_modules", "@stryker-mutator", "tap-runner", "dist", "src", "index.js")],
    tap: {
      testFiles: tests,
      nodeArgs: ["--disable-warning=ExperimentalWarning", "--test-reporter=tap", "-r", "{{hookFile}}", "{{testFile}}"],
      forceBail: true,
    },
    coverageAnalysis: "perTest",
    // Of a text for an operator another text can be made in any number of ways.
    mutator: { excludedMutations: ["StringLiteral"] },
    ignorePatterns: ["lab/.cache", ".cache", "coverage", "dist", "interop", "deploy"],
    // Its rewriting of tsconfig.json needs an API that TypeScript 7 does not have; Node runs the files as they are.
    tsconfigFile: "no-tsconfig.json",
    tempDirName: ".cache/mutate",
    reporters: ["clear-text"],
    clearTextReporter: { allowColor: false, logTests: false, reportTests: false },
    concurrency: 2,
    timeoutMS: 20_000,
  };
}
