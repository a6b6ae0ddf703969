import { parseArgs } from "node:util";
import { type Kernel, kernels, topologies } from "./topologies.ts";

/** What the command line asks for. */
export interface LabOptions {
  readonly kernels: readonly Kernel[];
  /** Part of the name of a topology or a scenario; empty for all. */
  readonly only: string;
  /** A shell in the first guest, for a person, instead of scenarios. */
  readonly isShellWanted: boolean;
  readonly isHelpWanted: boolean;
  /** How many guests run side by side. */
  readonly jobs: number;
}

export const usage = `npm run lab [-- --kernel 6.1|6.12] [-- --only NAME] [-- --shell]

Boots virtual machines with two emulated SR-IOV adapters and runs the forwarder in them, on the kernel's own drivers: no
hardware, no KVM, no root. Downloads QEMU and kernels as Debian packages into lab/.cache the first time, installs nothing.

  --kernel 6.1   only this kernel: 6.1 with cgroups of version 1, 6.12 with the unified hierarchy
  --only NAME    only topologies or scenarios whose name holds NAME; more than one with commas between
  --shell        a shell in such a guest (Ctrl-A X ends it); the forwarder is /project/dist/forwarder.mjs
  --jobs N       guests side by side; one for each CPU by default
  --help         this text

${topologies.map(({ name, says, scenarios }) => `  ${name}: ${says}\n    ${scenarios.join(", ")}`).join("\n")}
`;

/** Undefined when an argument is unknown or cannot be read. */
export function readOptions(args: readonly string[], cpus: number): LabOptions | undefined {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        kernel: { type: "string" },
        only: { type: "string" },
        shell: { type: "boolean" },
        jobs: { type: "string" },
        help: { type: "boolean", short: "h" },
      },
    });
    const chosen = kernels.filter((kernel) => values.kernel === undefined || kernel === values.kernel);
    const jobs = values.jobs ?? String(cpus);
    if (chosen.length === 0 || !/^[1-9]\d?$/.test(jobs)) return undefined;
    return {
      kernels: chosen,
      only: values.only ?? "",
      isShellWanted: values.shell === true,
      isHelpWanted: values.help === true,
      jobs: Number(jobs),
    };
  } catch {
    return undefined;
  }
}
