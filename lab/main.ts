// npm run lab: the forwarder on the kernel's own SR-IOV drivers, in virtual machines. README.md says how it works.
import { spawn } from "node:child_process";
import { mkdirSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { dirname, join, relative } from "node:path";
import { buildPrograms } from "./bundle.ts";
import { readOptions, usage } from "./options.ts";
import { debianMirror } from "./prepare/mirror.ts";
import { type Prepared, prepare } from "./prepare/prepare.ts";
import { LabError } from "./prepare/program.ts";
import { qemuCommand } from "./qemu.ts";
import { closingLine, figuresOf, type GuestResult } from "./report.ts";
import { runGuest } from "./run-guest.ts";
import { type GuestPlan, planGuests, titleOf } from "./topologies.ts";

const project = realpathSync(join(import.meta.dirname, ".."));
const cache = join(project, "lab", ".cache");
const results = join(cache, "results");
const report = (line: string) => process.stdout.write(`${line}\n`);

const options = readOptions(process.argv.slice(2), cpus().length);
if (options === undefined) {
  process.stderr.write(usage);
  process.exit(2);
}
if (options.isHelpWanted) {
  process.stdout.write(usage);
  process.exit(0);
}

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => stop.abort(signal));

const plans = planGuests(options);
try {
  if (plans.length === 0) throw new LabError(`Nothing to run: no topology or scenario is called ${options.only}`);
  const kernels = [...new Set(plans.map(({ kernel }) => kernel))];
  const mirror = debianMirror();
  const prepared = await prepare({ cache, kernels, mirror, report });
  const program = `/project/${relative(project, await buildPrograms(project, cache))}`;
  if (options.isShellWanted) await openShell(prepared, plans[0] as GuestPlan);
  else await runAll(prepared, program, options.jobs);
} catch (error) {
  process.exitCode = 1;
  process.stderr.write(`${error instanceof LabError ? error.message : (error as Error).stack}\n`);
}

async function runAll(prepared: Prepared, program: string, jobs: number): Promise<void> {
  const waiting = [...plans];
  const done: GuestResult[] = [];
  const work = async () => {
    for (let plan = waiting.shift(); plan && !stop.signal.aborted; plan = waiting.shift()) {
      const machine = machineOf(prepared, plan);
      const result = await runGuest({ plan, machine, program, report, signal: stop.signal });
      report(`  ${titleOf(plan)}: the guest took ${(result.ms / 1000).toFixed(1)} s`);
      done.push(result);
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
  writeFileSync(join(results, "results.json"), `${JSON.stringify(done, undefined, 2)}\n`);
  writeFileSync(join(results, "figures.json"), `${JSON.stringify(figuresOf(done), undefined, 2)}\n`);
  for (const { kernel, topology, tests } of done) {
    for (const { scenario, name, error } of tests) {
      if (error !== undefined) report(`✖ ${kernel} ${topology}: ${scenario}: ${name}\n    ${error}`);
    }
  }
  report(`Logs, results and figures: ${relative(process.cwd(), results)}`);
  report(closingLine(done));
  if (done.length < plans.length || done.some(({ tests }) => tests.some(({ error }) => error))) process.exitCode = 1;
}

function machineOf({ root, kernels }: Prepared, { kernel, topology }: GuestPlan) {
  const files = kernels.get(kernel);
  if (!files) throw new Error(`Linux ${kernel} was not prepared`);
  const shares = {
    project,
    node: dirname(realpathSync(process.execPath)),
    out: join(results, `${kernel}-${topology.name}`),
  };
  return { root, ...files, kernel, topology, shares };
}

async function openShell(prepared: Prepared, plan: GuestPlan): Promise<void> {
  const machine = machineOf(prepared, plan);
  rmSync(machine.shares.out, { recursive: true, force: true });
  mkdirSync(machine.shares.out, { recursive: true });
  writeFileSync(join(machine.shares.out, "start.sh"), "exec setsid cttyhack sh\n");
  report(`${titleOf(plan)}: ${plan.topology.says}. Ctrl-A X ends the guest.`);
  const [command, ...args] = qemuCommand({ ...machine, isInteractive: true });
  const child = spawn(command, args, { stdio: "inherit" });
  stop.signal.addEventListener("abort", () => child.kill("SIGKILL"), { once: true });
  await new Promise((resolve) => child.on("close", resolve));
}
