// Everything that a guest is made of: QEMU and a Debian tree to run it and to be the guest's root, kernels, the test program.
import { createHash } from "node:crypto";
import { chmodSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import type { Kernel } from "../topologies.ts";
import { cachedFolder } from "./checksums.ts";
import { cpioArchive } from "./cpio.ts";
import { Debian, type KernelSuite, unpack } from "./debian.ts";
import { collectModules } from "./modules.ts";
import { LabError, runProgram } from "./program.ts";
import { extractVmlinux } from "./vmlinux.ts";

/** Where the prepared things are. */
export interface Prepared {
  /** A Debian tree: QEMU's on this machine, the root file system in the guest. */
  readonly root: string;
  readonly kernels: ReadonlyMap<Kernel, { readonly vmlinux: string; readonly initramfs: string }>;
}

export interface PrepareOptions {
  readonly cache: string;
  readonly kernels: readonly Kernel[];
  readonly mirror: string;
  readonly report: (line: string) => void;
}

/**
 * In the tree: QEMU; what the guest's Node needs; a shell, iproute2, ethtool, ping and nsenter to look with; udev; xz for kernels, a
 * compiler for the test program, and mke2fs for a guest's disk.
 */
const packages = [
  ...["qemu-system-x86", "libstdc++6", "xz-utils", "tcc", "e2fsprogs"],
  ...["dash", "busybox-static", "iproute2", "ethtool", "iputils-ping", "util-linux", "udev"],
];

/** In the order of loading. vfio_iommu_type1 and crc32c by name: nothing asks for them by itself where there is no modprobe. */
const modules = [
  ...["virtio_pci", "9pnet_virtio", "9p", "overlay", "veth", "bridge", "macvlan", "8021q", "sch_ingress"],
  ...["igb", "igbvf", "vfio", "vfio_iommu_type1", "vfio-pci"],
  ...["virtio_blk", "crc32c_generic", "ext4"],
];

const suites: Record<Kernel, KernelSuite> = { "6.1": "bookworm", "6.12": "bookworm-backports" };
const guestFolder = join(import.meta.dirname, "..", "guest");

/** Downloads, unpacks and builds what is not in the cache, or is there and has been changed since. */
export async function prepare(options: PrepareOptions): Promise<Prepared> {
  const { cache, kernels, report } = options;
  mkdirSync(cache, { recursive: true });
  const debian = new LazyDebian(options);
  const root = join(cache, "root");
  const program = readFileSync(join(guestFolder, "vfio-client.c"));
  try {
    await cachedFolder(root, { packages, program: sumOf(program), format: 1 }, async (folder) => {
      report("Preparing QEMU and the guest's root (Debian packages, about 50 MB to download) …");
      return makeRoot(await debian.get(), folder);
    });
    const made = new Map<Kernel, { vmlinux: string; initramfs: string }>();
    for (const kernel of kernels) {
      const home = join(cache, `kernel-${kernel}`);
      const init = readFileSync(join(guestFolder, "init.sh"));
      await cachedFolder(home, { modules, suite: suites[kernel], init: sumOf(init), format: 1 }, async (folder) => {
        report(`Preparing Linux ${kernel} (about 100 MB to download) …`);
        return makeKernel(await debian.get(), { root, folder, suite: suites[kernel], init });
      });
      made.set(kernel, { vmlinux: join(home, "vmlinux"), initramfs: join(home, "initramfs.cpio") });
    }
    return { root, kernels: made };
  } finally {
    rmSync(join(cache, "apt", "cache"), { recursive: true, force: true });
  }
}

/** The package lists are read when the first package is asked for, and once. */
class LazyDebian {
  readonly #options: PrepareOptions;
  #debian: Promise<Debian> | undefined;

  constructor(options: PrepareOptions) {
    this.#options = options;
  }

  get(): Promise<Debian> {
    this.#debian ??= this.#open();
    return this.#debian;
  }

  async #open(): Promise<Debian> {
    const { cache, mirror } = this.#options;
    const debian = new Debian({ folder: join(cache, "apt"), mirror });
    await debian.update();
    return debian;
  }
}

async function makeRoot(debian: Debian, folder: string): Promise<readonly string[]> {
  const files = await debian.downloadClosure(packages);
  await unpack(files, folder);
  for (const name of ["doc", "man", "locale", "info"]) rmSync(join(folder, "usr/share", name), { recursive: true });
  await buildTestProgram(folder);
  return files.map((file) => basename(file));
}

/** A static program without any library, compiled by the tree's own compiler: the machine needs none. */
async function buildTestProgram(root: string): Promise<void> {
  const output = join(root, "usr/local/bin/vfio-client");
  mkdirSync(join(root, "usr/local/bin"), { recursive: true });
  const flags = [`-B${join(root, "usr/lib/x86_64-linux-gnu/tcc")}`, "-nostdlib", "-static", "-Wall", "-Werror"];
  await runInRoot(root, "usr/bin/tcc", [...flags, "-o", output, join(guestFolder, "vfio-client.c")]);
  chmodSync(output, 0o755);
}

async function makeKernel(
  debian: Debian,
  options: { readonly root: string; readonly folder: string; readonly suite: KernelSuite; readonly init: Buffer },
): Promise<readonly string[]> {
  const { root, folder, suite, init } = options;
  const file = await debian.downloadKernel(suite);
  const unpacked = join(folder, "unpacked");
  await unpack([file], unpacked);
  rmSync(file);
  const busybox = join(root, "bin/busybox");
  const [xz, ...first] = commandInRoot(root, "usr/bin/xz");
  // Behind the kernel there is what fills its section up.
  const unxz = (packed: Buffer) => runProgram(xz, [...first, "-dc", "--single-stream"], { input: packed });
  const [image] = globSync("boot/vmlinuz-*", { cwd: unpacked });
  if (image === undefined) throw new LabError(`There is no kernel in ${basename(file)}`);
  writeFileSync(join(folder, "vmlinux"), await extractVmlinux(readFileSync(join(unpacked, image)), unxz));
  const found = await collectModules(unpacked, modules, unxz);
  const files = [
    { path: "init", mode: 0o755, bytes: init },
    { path: "bin/busybox", mode: 0o755, bytes: readFileSync(busybox) },
    ...found.map(({ name, bytes }, at) => ({
      path: `modules/${String(at).padStart(2, "0")}-${name}.ko`,
      mode: 0o644,
      bytes,
    })),
  ];
  writeFileSync(join(folder, "initramfs.cpio"), cpioArchive(["bin", "modules", "proc", "sys", "dev", "root"], files));
  rmSync(unpacked, { recursive: true });
  return [basename(file)];
}

/** How to run a program of the tree on this machine: with the tree's own loader and libraries, whatever this machine has. */
export function commandInRoot(root: string, program: string): readonly [string, ...string[]] {
  const libraries = ["lib", "usr/lib"].map((folder) => join(root, folder, "x86_64-linux-gnu"));
  return [join(root, "lib64/ld-linux-x86-64.so.2"), "--library-path", libraries.join(":"), join(root, program)];
}

async function runInRoot(root: string, program: string, args: readonly string[]): Promise<void> {
  const [command, ...first] = commandInRoot(root, program);
  await runProgram(command, [...first, ...args]);
}

function sumOf(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}
