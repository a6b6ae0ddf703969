// npm run bench: how fast the forwarder is, and what it takes. docs/bench.md says how to read the figures.
import { writeFileSync } from "node:fs";
import { cpus, loadavg, release } from "node:os";
import { join } from "node:path";
import { enterOwnNamespaces } from "../sandbox/demo/namespaces.ts";
import { Screen } from "../sandbox/demo/screen.ts";
import { bundleProgram } from "../tools/bundle-program.ts";
import type { HostileFigures } from "./hostile.ts";
import { hostileKeys, hostileTables } from "./hostile-report.ts";
import { labFigures } from "./lab-figures.ts";
import { readOptions, usage } from "./options.ts";
import type { MachineLine } from "./report.ts";
import { kubeletTable, reportOf, rounded, tableOf } from "./report.ts";
import { Runner } from "./runner.ts";

const options = readOptions(process.argv.slice(2));
if (options === undefined) {
  process.stderr.write(usage);
  process.exit(2);
}
if (options.isHelpWanted) {
  process.stdout.write(usage);
  process.exit(0);
}

const privileges = await enterOwnNamespaces(process.argv.slice(1), { isPageWanted: false });
if (privileges.kind === "handed-on") process.exit(privileges.exitCode);

const stop = new AbortController();
// npm and the terminal may both pass a Ctrl-C on: one is enough, the clean-up must not be cut short by the second.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => stop.abort(new Error(`ended by ${signal}`)));
}
process.stdout.on("error", () => stop.abort(new Error("the reader has gone")));

const { whyNoLinks } = privileges;
const machine: MachineLine = {
  cpus: cpus().length,
  cpuModel: cpus()[0]?.model ?? "unknown",
  kernel: release(),
  node: process.version,
  links: whyNoLinks === undefined ? "veth in network namespaces" : "none",
  loadAverage: loadavg()[0] ?? 0,
};
const screen = new Screen(process.stdout, { noColour: (process.env["NO_COLOR"] ?? "") !== "" });
const program = await bundleProgram(join(import.meta.dirname, ".."), "bench/node-process.ts");
const killableProgram = await bundleProgram(join(import.meta.dirname, ".."), "sandbox/process/forwarder-process.ts");
const runner = new Runner({
  ...options,
  program,
  killableProgram,
  realLinks: whyNoLinks === undefined,
  report: (line) => screen.text(line),
  signal: stop.signal,
});
try {
  screen.heading("The forwarder, measured");
  screen.text(
    `${machine.cpus} × ${machine.cpuModel}, Linux ${machine.kernel}, Node ${machine.node}, links: ${machine.links}`,
  );
  if (machine.loadAverage > machine.cpus) {
    screen.text(`The machine is busy (load average ${machine.loadAverage.toFixed(1)}): every time will be too long.`);
  }
  if (whyNoLinks !== undefined) screen.text(`Without links there is no Request to measure: ${whyNoLinks}.`);
  const report = await chosen();
  if (options.jsonFile !== undefined) writeFileSync(options.jsonFile, `${JSON.stringify(report, undefined, 2)}\n`);
} catch (error) {
  process.exitCode = 1;
  const isWanted = stop.signal.aborted && error === stop.signal.reason;
  process.stderr.write(`${error instanceof Error && !isWanted ? error.stack : String(error)}\n`);
}
process.exit();

async function chosen() {
  if (options?.isHostileOnly) return await attacked();
  return options && options.cycles > 0 ? await soaked(options.cycles) : await measured();
}

async function attacked() {
  const hostile = await runner.hostile();
  show(hostile);
  return rounded({ machine, ...(hostile && { hostile: hostileKeys(hostile) }) });
}

function show(hostile: HostileFigures | undefined): void {
  if (!hostile) return;
  for (const { says, headings, rows } of hostileTables(hostile)) {
    screen.text("");
    screen.text(says);
    screen.table(headings, rows);
  }
  for (const says of hostile.leftOut) screen.text(`Left out, for its time was over: a peer ${says}.`);
}

async function measured() {
  const { nodes, kubelet, recovery, hostile } = await runner.measure();
  for (const { headings, rows } of [tableOf(nodes), kubeletTable(kubelet, recovery)]) screen.table(headings, rows);
  show(hostile);
  const lab = labFigures();
  return { ...reportOf(machine, nodes, { kubelet, recovery, hostile }), ...(lab !== undefined && { lab }) };
}

async function soaked(cycles: number) {
  const { cycles: done, ...figures } = await runner.soak(cycles);
  screen.table(["after", ...Object.keys(figures)], [[`${done} cycles`, ...Object.values(figures).map(String)]]);
  return { machine, [`cycles_${cycles}`]: figures };
}
