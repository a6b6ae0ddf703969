import { dirname, resolve } from "node:path";
import {
  BlockingWrites,
  folderRefusal,
  type HostFiles,
  KernelError,
  openHostFiles,
  selfTest,
} from "../../kernel/index.ts";
import { orMissing } from "../../pci/index.ts";
import type { CommandSettings } from "../command.ts";
import type { CheckFiles } from "./check-files.ts";
import type { FolderFact, ProcessFacts, VfioFacts } from "./facts-form.ts";

/** What the node has for VFIO. */
export async function readVfio({ vfioPath }: CommandSettings, files: CheckFiles): Promise<VfioFacts> {
  const { drivers, vfio, proc, sys } = files;
  const memlock = await readMemlock(proc);
  const hasDriver = await drivers.exists("vfio-pci");
  const noIommu = await orMissing(sys.readText("module/vfio/parameters/enable_unsafe_noiommu_mode"));
  return {
    iommuGroupCount: ((await orMissing(sys.list("kernel/iommu_groups"))) ?? []).length,
    cpuVendor: /^vendor_id\s*:\s*(\S+)/m.exec((await orMissing(proc.readText("cpuinfo"))) ?? "")?.[1],
    hasDriver,
    hasMemoryModule: await sys.exists("module/vfio_iommu_type1"),
    isNoIommuMode: noIommu === "Y",
    path: vfioPath,
    hasFolder: (await orMissing(vfio.list("."))) !== undefined,
    hasContainerNode: (await orMissing(vfio.deviceNumber("vfio"))) !== undefined,
    // Without the driver the node may be there all the same, and opening it would load the module.
    openRefusal: hasDriver ? await openRefusal(vfio, "vfio") : undefined,
    isAtItsUsualPlace: await exists("/dev/vfio"),
    ...memlock,
  };
}

async function openRefusal(files: HostFiles, name: string): Promise<string | undefined> {
  try {
    await files.heldBy(name);
    return undefined;
  } catch (error) {
    if (error instanceof KernelError) return error.code;
    throw error;
  }
}

const runtimes = ["containerd", "crio", "dockerd"] as const;

/** The limit of the container runtime where its process can be seen, for pods inherit it; else our own, which is inherited too. */
async function readMemlock(proc: HostFiles): Promise<Pick<VfioFacts, "memlockBytes" | "memlockOf">> {
  const pids = (await proc.list(".")).filter((name) => /^\d+$/.test(name));
  for (const pid of pids) {
    const comm = await proc.readText(`${pid}/comm`).catch(() => ""); // gone meanwhile
    const runtime = runtimes.find((name) => name === comm);
    const limits = runtime && (await proc.readText(`${pid}/limits`).catch(() => undefined));
    if (runtime && limits !== undefined)
      return { memlockBytes: memlockIn(limits), memlockOf: `${runtime} (process ${pid})` };
  }
  return { memlockBytes: memlockIn(await proc.readText("self/limits")), memlockOf: "this process" };
}

/** The soft limit in /proc/PID/limits; undefined for "unlimited". */
function memlockIn(limits: string): number | undefined {
  const bytes = Number(/^Max locked memory\s+(\S+)/m.exec(limits)?.[1]);
  return Number.isNaN(bytes) ? undefined : bytes;
}

/** The soft limit, which Node has made the hard one when it started. */
function openFilesIn(limits: string): number | undefined {
  const count = Number(/^Max open files\s+(\S+)/m.exec(limits)?.[1]);
  return Number.isNaN(count) ? undefined : count;
}

/** The process and its kernel, by /proc and /sys. */
export async function readProcess({ proc, sys }: CheckFiles): Promise<ProcessFacts> {
  const status = await proc.readText("self/status");
  // The whole range of identifiers, mapped to itself: user_namespaces(7).
  const isInitial = /^\s*0\s+0\s+4294967295\s*$/.test(await proc.readText("self/uid_map"));
  return {
    capabilities: BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`),
    isUserNamespace: !isInitial,
    release: (await proc.readText("sys/kernel/osrelease")).trim(),
    arch: process.arch,
    seesHardware: await seesHardware(sys),
    openFiles: openFilesIn(await proc.readText("self/limits").catch(() => "")),
    selfTestProblem: await selfTest().then(
      () => undefined,
      (error: Error) => error.message,
    ),
  };
}

async function seesHardware(sys: HostFiles): Promise<boolean> {
  const names = (await orMissing(sys.list("class/net"))) ?? [];
  const found = await Promise.all(names.map((name) => sys.exists(`class/net/${name}/device`)));
  return found.includes(true);
}

/** Whether the folder can be written to, or made. */
export async function readFolder(given: string, proc: HostFiles): Promise<FolderFact> {
  const path = resolve(given);
  let nearest = path;
  while (nearest !== "/" && !(await exists(nearest))) nearest = dirname(nearest);
  return { path, nearest, refusal: await folderRefusal(nearest), fileSystem: await fileSystemOf(nearest, proc) };
}

async function exists(path: string): Promise<boolean> {
  return openHostFiles(dirname(path), new BlockingWrites()).exists(path.slice(path.lastIndexOf("/") + 1) || ".");
}

/** The type of the mount with the longest mount point above the path, the last one where several lie over each other. */
async function fileSystemOf(path: string, proc: HostFiles): Promise<string | undefined> {
  const mounts = await proc.readText("self/mountinfo").catch((error: unknown) => {
    if (error instanceof KernelError) return "";
    throw error;
  });
  let best: { readonly point: string; readonly type: string | undefined } | undefined;
  for (const line of mounts.split("\n")) {
    // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw: proc_pid_mountinfo(5)
    const [left = "", right = ""] = line.split(" - ");
    const point = left.split(" ")[4];
    if (point === undefined || !isWithin(path, point)) continue;
    if (best === undefined || point.length >= best.point.length) best = { point, type: right.split(" ")[0] };
  }
  return best?.type;
}

function isWithin(path: string, folder: string): boolean {
  return folder === "/" || path === folder || path.startsWith(`${folder}/`);
}
