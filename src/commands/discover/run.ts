import { BlockingWrites, KernelError, openHostFiles } from "../../kernel/index.ts";
import { serviceDomainProblem } from "../../pci/index.ts";
import type { Given, Surroundings, Terminal } from "../command.ts";
import { USAGE_EXIT_CODE } from "../help.ts";
import type { NodeAdapters } from "./adapter.ts";
import { type Choice, choosePfs } from "./choose.ts";
import { type AdapterFiles, readAdapters } from "./read-adapters.ts";
import { configText } from "./write-config.ts";

/** Prints a PF configuration for this node; `files` only in tests. */
export async function discover(given: Given, surroundings: Surroundings, files?: AdapterFiles): Promise<number> {
  const { out, err, environment, version } = surroundings;
  const serviceDomains = given.values("service-domain");
  const only = given.values("pf").map((name) => (/^[0-9a-f:.]+$/i.test(name) ? name.toLowerCase() : name));
  for (const domain of serviceDomains) {
    const problem = serviceDomainProblem(domain);
    if (problem === undefined) continue;
    err.write(`forwarder discover: --service-domain is "${domain}", which ${problem}\n`);
    return USAGE_EXIT_CODE;
  }
  const node = await adaptersOf(files ?? openFiles(environment.settings.pciDevicesPath), err);
  if (node === undefined) return 1;
  const choice = choosePfs(node, { serviceDomains, only });
  out.write(configText(choice, headingOf(choice, { version, serviceDomains }), out.columns));
  for (const name of choice.unknown) err.write(`forwarder discover: this node has no network adapter ${name}\n`);
  if (choice.chosen.length > 0) return choice.unknown.length === 0 ? 0 : 1;
  const where = choice.leftOut.length === 0 ? "it has no network adapter at all" : "the comments say why";
  err.write(`forwarder discover: no physical function of this node can be used: ${where}\n`);
  return 1;
}

/** Undefined when they cannot be read, and why is on the terminal. */
async function adaptersOf(files: AdapterFiles, err: Terminal): Promise<NodeAdapters | undefined> {
  try {
    return await readAdapters(files);
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    const todo = "set NSM_PCI_DEVICES_PATH to where the node's /sys/bus/pci/devices is";
    err.write(`forwarder discover: ${error.message}; ${todo}\n`);
    return undefined;
  }
}

function openFiles(pciDevicesPath: string): AdapterFiles {
  const writes = new BlockingWrites();
  return { devices: openHostFiles(pciDevicesPath, writes), proc: openHostFiles("/proc", writes) };
}

function headingOf(
  { chosen }: Choice,
  { version, serviceDomains }: { readonly version: string; readonly serviceDomains: readonly string[] },
): readonly string[] {
  const title = `PF configuration of this node, written by forwarder discover ${version}.`;
  if (chosen.length === 0) return [title];
  return [
    title,
    "Put it where NSM_SRIOV_CONFIG_FILE points, then run: forwarder check",
    ...(serviceDomains.length > 0
      ? []
      : ["First change what says CHANGE, or run: forwarder discover --service-domain NAME"]),
  ];
}
