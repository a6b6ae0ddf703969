import { join } from "node:path";
import { AccessError, kubepodsTrees, openHierarchy, PodFinder } from "../../access/index.ts";
import type { Clock } from "../../async/index.ts";
import {
  connectUnix,
  type HostFiles,
  KernelError,
  loadDeviceProgram,
  Netns,
  Rtnl,
  readSmallFile,
  writeRefusal,
} from "../../kernel/index.ts";
import { CHECKPOINT_FILE, parseCheckpoint } from "../../kubelet/index.ts";
import {
  type Discovery,
  discover,
  HostUseReader,
  netdevFolder,
  type PciAddress,
  PF_CONFIG_MEBIBYTES,
  PfConfigError,
  type PhysicalFunction,
  parsePfConfig,
} from "../../pci/index.ts";
import { silentLog } from "../../telemetry/index.ts";
import type { CommandSettings, Surroundings } from "../command.ts";
import type { CheckFiles } from "./check-files.ts";
import type { CgroupFacts, CheckFacts, PeerFact, PfListFact, PortFact } from "./facts-form.ts";
import { readFolder, readProcess, readVfio } from "./read-node.ts";

/** Reads all that is judged. Changes nothing: connections are closed at once, the BPF program is loaded and attached nowhere. */
export async function readFacts(
  { environment, readBudget, readPolicies, clock }: Surroundings,
  files: CheckFiles,
): Promise<CheckFacts> {
  const { settings } = environment;
  const pfList = await readPfList(settings.sriovConfigFile);
  const config = pfList.kind === "read" ? pfList.config : { physicalFunctions: [] };
  const discovery = await discover(config, { ...files, clock, log: silentLog });
  return {
    environment,
    pfList,
    discovery,
    ports: await readPorts(discovery, files.devices),
    sysfsRefusals: await readSysfsRefusals(discovery, settings.pciDevicesPath),
    hostUse: await readHostUse(discovery, files),
    vfio: await readVfio(settings, files),
    cgroups: await readCgroups(settings, clock),
    peers: readPeers(settings),
    managerIds: settings.managerSpiffeId?.map(({ text }) => text),
    pluginFolder: await readFolder(settings.devicePluginPath, files.proc),
    stateFolder: await readFolder(settings.statePath, files.proc),
    process: await readProcess(files),
    budget: await readBudget(),
    policies: await readPolicies(),
  };
}

async function readPfList(path: string): Promise<PfListFact> {
  try {
    const text = await readSmallFile(path, PF_CONFIG_MEBIBYTES);
    return { path, kind: "read", config: parsePfConfig(text, path) };
  } catch (error) {
    if (error instanceof KernelError) return { path, kind: "unreadable", code: error.code, detail: error.detail };
    if (!(error instanceof PfConfigError)) throw error;
    return { path, kind: "wrong", issues: error.message.split("\n").slice(1) };
  }
}

async function readPorts({ pfs }: Discovery, devices: HostFiles): Promise<ReadonlyMap<PciAddress, PortFact>> {
  return new Map(await Promise.all(pfs.map(async (pf) => [pf.address, await readPort(pf, devices)] as const)));
}

/** IFF_UP, include/uapi/linux/if.h. */
const IFF_UP = 1;

async function readPort({ address, ifname }: PhysicalFunction, devices: HostFiles): Promise<PortFact> {
  const folder = await netdevFolder(devices, address);
  const read = (name: string) => devices.readText(`${folder}/${ifname}/${name}`).catch(() => undefined);
  const flags = Number(await read("flags")) || 0;
  const carrier = await read("carrier");
  return { ifname, isUp: (flags & IFF_UP) !== 0, hasCarrier: carrier === undefined ? undefined : carrier === "1" };
}

async function readSysfsRefusals({ pfs }: Discovery, root: string): Promise<ReadonlyMap<PciAddress, string>> {
  const refusals = await Promise.all(
    pfs.map(async ({ address }) => [address, await writeRefusal(join(root, address, "sriov_numvfs"))] as const),
  );
  return new Map(
    refusals.flatMap(([address, refusal]) => (refusal === undefined ? [] : [[address, refusal] as const])),
  );
}

async function readHostUse({ pfs }: Discovery, { devices, netns: given }: CheckFiles): Promise<CheckFacts["hostUse"]> {
  const netns = given?.dup() ?? Netns.current();
  try {
    const reader = new HostUseReader({ devices, netns, openRtnl: (place) => Rtnl.open({ netns: place }) });
    const all = pfs.flatMap(({ address, vfs }) => [address, ...vfs.map((vf) => vf.address)]);
    const { netdevs, doubt } = await reader.observe(all).finally(() => reader.close());
    return doubt ? { kind: "unknown", problem: doubt.message } : { kind: "seen", netdevs };
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    return { kind: "unknown", problem: error.message };
  } finally {
    netns.close();
  }
}

/** Read by the module that works on them. */
async function readCgroups(
  { cgroupPath: given, devicePluginPath }: CommandSettings,
  clock: Clock,
): Promise<CgroupFacts> {
  try {
    const known = await podsOfKubelet(devicePluginPath);
    const { version, path, root } = openHierarchy(given, clock);
    const finder = new PodFinder(root);
    const missing = known.filter((uid) => finder.find(uid) === undefined);
    const pods = { trees: kubepodsTrees(root), known, missing };
    root.close();
    if (version === 1) return { path, kind: "v1", refusal: await writeRefusal(join(path, "devices.allow")), pods };
    return { path, kind: "v2", bpfProblem: bpfProblem(), pods };
  } catch (error) {
    if (error instanceof AccessError) return { path: given, kind: "none", problem: error.message };
    throw error;
  }
}

/** Some hundred times that of a node with 512 devices of it in use. */
const CHECKPOINT_MEBIBYTES = 16;

async function podsOfKubelet(devicePluginPath: string): Promise<readonly string[]> {
  const path = join(devicePluginPath, CHECKPOINT_FILE);
  const text = await readSmallFile(path, CHECKPOINT_MEBIBYTES).catch(() => ""); // judged by its folder and socket
  return [...new Set([...(parseCheckpoint(text) ?? new Map()).values()].map(({ podUid }) => podUid))];
}

/** `r0 = 1; exit`: lets everything pass. struct bpf_insn, include/uapi/linux/bpf.h. */
const ALLOW_ALL = Buffer.from("b7000000010000009500000000000000", "hex");

function bpfProblem(): string | undefined {
  try {
    loadDeviceProgram(ALLOW_ALL, "forwarder_check").close();
    return undefined;
  } catch (error) {
    const code = error instanceof KernelError ? ` (${error.code})` : `: ${String(error)}`;
    return `the kernel takes no BPF program from this process${code}`;
  }
}

/** Each is connected to and left again: a socket file alone proves nothing. */
function readPeers(settings: CommandSettings): readonly PeerFact[] {
  const peers: readonly (readonly [PeerFact["check"], string | undefined])[] = [
    ["spire-agent", pathOfUrl(settings.spiffeEndpointSocket)],
    ["nsmgr", pathOfUrl(settings.connectTo)],
    ["kubelet", join(settings.devicePluginPath, "kubelet.sock")],
    ["pod-resources", join(settings.podResourcesPath, "kubelet.sock")],
  ];
  return peers.map(([check, path]) => ({ check, path, refusal: path === undefined ? undefined : refusalOf(path) }));
}

function pathOfUrl(url: string | undefined): string | undefined {
  return url?.startsWith("unix://") ? url.slice("unix://".length) : undefined;
}

function refusalOf(path: string): string | undefined {
  try {
    connectUnix(path).destroy();
    return undefined;
  } catch (error) {
    return error instanceof KernelError ? error.code : (error as Error).message;
  }
}
