import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { type MachineOptions, startMachine } from "../../sandbox/machine/machine.ts";
import { PodCgroups } from "../../sandbox/pod/pod-cgroups.ts";
import type { CheckFiles } from "../../src/commands/check/check-files.ts";
import type { Finding } from "../../src/commands/check/finding.ts";
import { check } from "../../src/commands/check/run.ts";
import type { CommandSettings, Given } from "../../src/commands/command.ts";
import { someSurroundings } from "../../src/commands/testing/fakes.ts";
import { BlockingWrites, type HostFiles, KernelError, openHostFiles } from "../../src/kernel/index.ts";
import { needs } from "../needs.ts";
import { ip } from "./scenes/ip.ts";

/** A folder with these files and folders in it; a name that ends in a slash is a folder. */
function tree(t: TestContext, entries: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(tmpdir(), "check-"));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(entries)) {
    const path = join(root, name);
    mkdirSync(name.endsWith("/") ? path : dirname(path), { recursive: true });
    if (!name.endsWith("/")) writeFileSync(path, text);
  }
  return root;
}

async function listening(t: TestContext, path: string): Promise<void> {
  const server = createServer((socket) => socket.destroy()).listen(path);
  await new Promise((resolve) => server.once("listening", resolve));
  t.after(() => new Promise((resolve) => server.close(resolve)));
}

const json: Given = { has: (name) => name === "json", values: () => [], words: [] };

interface Checked {
  readonly code: number;
  readonly works: Readonly<Record<string, boolean>>;
  /** "fail nsmgr", with the subject where there is one. */
  readonly lines: readonly string[];
  readonly findings: readonly Finding[];
}

interface NodeToCheck {
  /** Holds what is not of the machine: sockets, folders, the list. */
  readonly root: string;
  readonly files: CheckFiles;
  readonly settings: Partial<CommandSettings>;
}

/** A node on which nothing is wrong, as far as this machine lets one be made. */
async function soundNode(t: TestContext, cgroups: PodCgroups): Promise<NodeToCheck> {
  const machine = await startMachine({});
  t.after(() => machine.stop());
  const root = tree(t, { "pci.config": machine.configText, "plugins/": "", "pods/": "", "state/": "" });
  const sockets = ["agent.sock", "nsm.io.sock", "plugins/kubelet.sock", "pods/kubelet.sock"];
  for (const name of sockets) await listening(t, join(root, name));
  const sys = tree(t, { "kernel/iommu_groups/1/": "", "module/vfio_iommu_type1/": "", "class/net/eth0/device/": "" });
  const writes = new BlockingWrites();
  const { devices, drivers, vfio, queryEswitchMode } = machine;
  return {
    root,
    files: {
      devices,
      drivers,
      vfio,
      verifyLink: async () => {},
      queryEswitchMode,
      proc: openHostFiles("/proc", writes),
      sys: openHostFiles(sys, writes),
    },
    settings: {
      sriovConfigFile: join(root, "pci.config"),
      spiffeEndpointSocket: `unix://${join(root, "agent.sock")}`,
      connectTo: `unix://${join(root, "nsm.io.sock")}`,
      devicePluginPath: join(root, "plugins"),
      podResourcesPath: join(root, "pods"),
      statePath: join(root, "state"),
      pciDevicesPath: tree(t, { "0000:01:00.0/sriov_numvfs": "8", "0000:02:00.0/sriov_numvfs": "8" }),
      cgroupPath: cgroups.path,
    },
  };
}

async function checkedNode({ files, settings }: NodeToCheck): Promise<Checked> {
  const around = someSurroundings(settings);
  const code = await check(json, around, files);
  const { works, findings } = JSON.parse(around.out.text) as Pick<Checked, "works" | "findings">;
  const lines = findings.map(({ level, check: name, subject }) => [level, name, subject].filter(Boolean).join(" "));
  return { code, works, findings, lines };
}

async function checked(
  t: TestContext,
  options: MachineOptions,
  settings: Partial<CommandSettings>,
  commands: readonly string[] = [],
): Promise<Checked> {
  const machine = await startMachine(options);
  t.after(() => machine.stop());
  for (const command of commands) await ip(machine.netns, command);
  const config = tree(t, { "pci.config": machine.configText });
  const sys = tree(t, { "kernel/iommu_groups/1/": "", "module/vfio_iommu_type1/": "", "class/net/eth0/device/": "" });
  const writes = new BlockingWrites();
  const { devices, drivers, vfio, netns, queryEswitchMode } = machine;
  const files = {
    devices,
    drivers,
    vfio,
    verifyLink: async () => {},
    netns,
    queryEswitchMode,
    proc: openHostFiles("/proc", writes),
    sys: openHostFiles(sys, writes),
  };
  return await checkedNode({
    root: config,
    files,
    settings: { sriovConfigFile: join(config, "pci.config"), ...settings },
  });
}

const PFS = ["0000:01:00.0", "0000:02:00.0"];

test("check finds the VFs of a sound node in order, as the forwarder would", async (t) => {
  const { lines } = await checked(t, {}, {});
  for (const pf of PFS) {
    assert.ok(lines.includes(`ok pf ${pf}`), lines.join("\n"));
    assert.ok(lines.includes(`ok iommu-group ${pf}`), lines.join("\n"));
  }
  for (const line of [
    "ok pf-config",
    "ok iommu",
    "ok vfio-pci",
    "ok vfio-nodes",
    "ok network-namespace",
    "ok kernel",
  ]) {
    assert.ok(lines.includes(line), `${line} in\n${lines.join("\n")}`);
  }
});

test("check makes no VFs", async (t) => {
  const { findings } = await checked(t, { numVfs: 0 }, {});
  const reported = findings.filter(({ check: name }) => name === "pf").map(({ what }) => what);
  assert.deepEqual(
    reported,
    ["enp1s0f0", "enp2s0f0"].map((ifname) => `${ifname} (igb), no VFs yet; the forwarder makes 8 at its start`),
  );
});

test("check reports what the host uses, and what follows", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const uplink = ["address add 192.0.2.7/24 dev enp1s0f0", "route add default via 192.0.2.1"];
  const vf = await checked(t, { realLinks: true, vfsPerPf: 2 }, {}, [
    ...uplink,
    "address add 10.9.9.9/24 dev enp2s0f0v1",
  ]);
  const reported = (found: Checked, name: string) =>
    found.findings
      .filter(({ check: one }) => one === name)
      .map(({ level, subject, what, todo }) => [level, subject, what, todo].join(" | "));
  const use = "the host uses it: enp1s0f0 has the IPv4 default route via 192.0.2.1, has address 192.0.2.7/24";
  assert.deepEqual(reported(vf, "pf-host-use"), [
    `ok | 0000:01:00.0 | ${use}; nothing but setting it up is done to it | `,
  ]);
  assert.deepEqual(reported(vf, "vf-host-use"), [
    "warn | 0000:02:00.0 | the host uses 1 VF of 2: 0000:02:10.2 (enp2s0f0v1 has address 10.9.9.9/24) | ip address del 10.9.9.9/24 dev enp2s0f0v1, or set hostUse: allow in the file",
  ]);
  const none = await checked(t, { realLinks: true, vfsPerPf: 2, numVfs: 0 }, {}, uplink);
  assert.deepEqual(reported(none, "pf-host-use"), [
    `fail | 0000:01:00.0 | ${use} | make them when the host can do without it (echo 2 > /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs), or set hostUse: create-vfs in the file`,
  ]);
  assert.deepEqual(none.works, { KERNEL: false, VFIO: false });
});

test("check reports groups that are shared with others", async (t) => {
  const { lines, works } = await checked(t, { iommu: "with-pf" }, {});
  for (const pf of PFS) assert.ok(lines.includes(`fail iommu-group ${pf}`), lines.join("\n"));
  assert.equal(works["VFIO"], false);
});

test("check connects to the peers, and tells a dead socket from none", async (t) => {
  const root = tree(t, { "plugins/": "", "pods/": "", "spire.sock": "" });
  await listening(t, join(root, "nsm.io.sock"));
  await listening(t, join(root, "plugins", "kubelet.sock"));
  const { code, works, lines, findings } = await checked(
    t,
    {},
    {
      connectTo: `unix://${join(root, "nsm.io.sock")}`,
      spiffeEndpointSocket: `unix://${join(root, "spire.sock")}`,
      devicePluginPath: join(root, "plugins"),
      podResourcesPath: join(root, "pods"),
      statePath: join(root, "state", "deep"),
    },
  );
  for (const line of ["ok nsmgr", "ok kubelet", "ok plugin-folder", "fail spire-agent", "fail pod-resources"]) {
    assert.ok(lines.includes(line), `${line} in\n${lines.join("\n")}`);
  }
  const whatOf = (name: string) => findings.find((one) => one.check === name)?.what ?? "";
  assert.match(whatOf("spire-agent"), /no process listens at .*spire\.sock any more/);
  assert.match(whatOf("pod-resources"), /no socket .*pods\/kubelet\.sock/);
  assert.match(whatOf("state-folder"), /state\/deep/);
  assert.deepEqual([code, works], [1, { KERNEL: false, VFIO: false }]);
});

test("check reads no device and no list without an end", async (t) => {
  const large = join(tree(t, { large: `#${" ".repeat(1024 * 1024)}` }), "large");
  for (const [sriovConfigFile, said] of [
    ["/dev/zero", "/dev/zero cannot be read: it is no file (EINVAL)"],
    [large, `${large} cannot be read: it is larger than 1 MiB (EFBIG)`],
  ] as const) {
    const { code, findings } = await checked(t, {}, { sriovConfigFile });
    const found = findings.find((one) => one.check === "pf-config");
    assert.deepEqual([code, found?.level, found?.what], [1, "fail", said]);
    assert.equal(found?.todo, "set NSM_SRIOV_CONFIG_FILE to the file with the list");
  }
});

test("check waits for no writer of what stands in the place of kubelet's checkpoint", async (t) => {
  const plugins = tree(t, {});
  execFileSync("mkfifo", [join(plugins, "kubelet_internal_checkpoint")]);
  const { findings } = await checked(t, {}, { devicePluginPath: plugins });
  assert.ok(findings.some(({ check }) => check === "kubelet"));
});

test("check takes neither a file, nor a path below one, nor one in /proc for a folder to keep state in", async (t) => {
  const file = join(tree(t, { afile: "" }), "afile");
  for (const [statePath, said] of [
    [file, `${file} is no folder`],
    [join(file, "sub", "deep"), `${file} is no folder`],
    ["/proc/nsm", "/proc/nsm is no folder for files: it is on proc, where only the kernel makes them"],
  ] as const) {
    const { findings } = await checked(t, {}, { statePath, devicePluginPath: file });
    const found = findings.filter((one) => ["state-folder", "plugin-folder"].includes(one.check));
    assert.deepEqual(
      found.map(({ level, what }) => `${level} ${what}`),
      [`fail ${file} is no folder`, `fail ${said}`],
    );
  }
});

test("check names every mistake of the list with its place", async (t) => {
  const root = tree(t, { "pci.config": "physicalFunctions:\n  0000:3b:00.0:\n    pfKernelDriver: ice\n" });
  const { findings } = await checked(t, {}, { sriovConfigFile: join(root, "pci.config") });
  const reported = findings.filter(({ check: name }) => name === "pf-config");
  assert.deepEqual([reported.length, reported.every(({ level }) => level === "fail")], [3, true]);
  for (const { what } of reported) assert.match(what, /pci\.config:\d+:\d+: /);
});

/** Of the machine that the test runs on, whatever the sandbox is like: its memory limits, and where /tmp lies. */
const OF_THIS_MACHINE = ["warn memlock", "warn state-folder"];

const without = (files: HostFiles, gone: RegExp): HostFiles => ({
  ...files,
  exists: async (path) => !gone.test(path) && (await files.exists(path)),
  readText: async (path) => (gone.test(path) ? Promise.reject(new KernelError(path, ENOENT)) : files.readText(path)),
  list: async (path) => (gone.test(path) ? Promise.reject(new KernelError(path, ENOENT)) : files.list(path)),
  deviceNumber: async (path) =>
    gone.test(path) ? Promise.reject(new KernelError(path, ENOENT)) : files.deviceNumber(path),
});
const ENOENT = 2;

interface Break {
  readonly broken: string;
  readonly change: (node: NodeToCheck) => Partial<NodeToCheck> | undefined;
  readonly line: string;
  readonly fails: "both" | "KERNEL" | "VFIO" | "none";
  /** What it says to do. */
  readonly todo: RegExp;
}

const removes = (name: string) => (node: NodeToCheck) => void rmSync(join(node.root, name), { recursive: true });
const hides =
  (tree: Exclude<keyof CheckFiles, "verifyLink" | "netns" | "queryEswitchMode">, gone: RegExp) =>
  (node: NodeToCheck) => ({
    files: { ...node.files, [tree]: without(node.files[tree], gone) },
  });

const breaks: readonly Break[] = [
  {
    broken: "no list",
    change: removes("pci.config"),
    line: "fail pf-config",
    fails: "both",
    todo: /forwarder discover >/,
  },
  {
    broken: "no SPIRE agent",
    change: removes("agent.sock"),
    line: "fail spire-agent",
    fails: "both",
    todo: /start the SPIRE/,
  },
  {
    broken: "a PF in switchdev mode",
    change: ({ files }) => ({
      files: { ...files, queryEswitchMode: async (pf) => (pf === PFS[1] ? "switchdev" : "legacy") },
    }),
    line: `fail pf-switch-mode ${PFS[1]}`,
    fails: "both",
    todo: /devlink dev eswitch set pci\/0000:02:00\.0 mode legacy/,
  },
  { broken: "no manager", change: removes("nsm.io.sock"), line: "fail nsmgr", fails: "both", todo: /start the NSMgr/ },
  {
    broken: "no kubelet",
    change: removes("plugins/kubelet.sock"),
    line: "fail kubelet",
    fails: "both",
    todo: /kubelet runs/,
  },
  {
    broken: "no plugin folder",
    change: removes("plugins"),
    line: "fail plugin-folder",
    fails: "both",
    todo: /mount the host's/,
  },
  {
    broken: "no pod resources",
    change: removes("pods/kubelet.sock"),
    line: "fail pod-resources",
    fails: "both",
    todo: /mount/,
  },
  {
    broken: "the card is gone",
    change: hides("devices", /^0000:02:00\.0/),
    line: "fail pf 0000:02:00.0",
    fails: "both",
    todo: /lspci/,
  },
  {
    broken: "no VF driver",
    change: hides("drivers", /^igbvf$/),
    line: "fail vf-driver 0000:01:00.0",
    fails: "KERNEL",
    todo: /modprobe igbvf/,
  },
  {
    broken: "no vfio-pci",
    change: hides("drivers", /^vfio-pci$/),
    line: "fail vfio-pci",
    fails: "VFIO",
    todo: /modprobe vfio-pci/,
  },
  { broken: "no IOMMU", change: hides("sys", /iommu_groups/), line: "fail iommu", fails: "VFIO", todo: /IOMMU|VT-d/ },
  {
    broken: "no memory module",
    change: hides("sys", /vfio_iommu_type1/),
    line: "warn vfio-iommu-type1",
    fails: "none",
    todo: /modprobe/,
  },
  {
    broken: "no VFIO node",
    change: hides("vfio", /^vfio$/),
    line: "fail vfio-nodes",
    fails: "VFIO",
    todo: /mount the host's \/dev\/vfio/,
  },
  {
    broken: "no host network",
    change: hides("sys", /device$/),
    line: "warn network-namespace",
    fails: "none",
    todo: /hostNetwork/,
  },
  {
    broken: "no cgroups",
    change: ({ settings }) => ({ settings: { ...settings, cgroupPath: "/nowhere" } }),
    line: "fail device-cgroups",
    fails: "VFIO",
    todo: /NSM_CGROUP_PATH/,
  },
  {
    broken: "a path above the node's cgroups",
    change({ settings }) {
      for (const name of ["kubepods", "other-node/kubepods"])
        mkdirSync(join(settings.cgroupPath ?? "", "up", name), { recursive: true });
      return { settings: { ...settings, cgroupPath: join(settings.cgroupPath ?? "", "up") } };
    },
    line: "warn pod-cgroups",
    fails: "none",
    todo: /NSM_CGROUP_PATH/,
  },
];

test("check finds nothing wrong with a sound node, and the one thing that is wrong with another", async (t) => {
  if (!needs(t, "root", "cgroup1-devices")) return;
  const cgroups = PodCgroups.make() ?? assert.fail("no device cgroups");
  t.after(() => cgroups.close());
  const sound = await checkedNode(await soundNode(t, cgroups));
  const odd = sound.lines.filter((line) => !line.startsWith("ok ") && !OF_THIS_MACHINE.includes(line));
  assert.deepEqual([odd, sound.works, sound.code], [[], { KERNEL: true, VFIO: true }, 0]);
  for (const { broken, change, line, fails, todo } of breaks) {
    const node = await soundNode(t, cgroups);
    const { lines, works, findings, code } = await checkedNode({ ...node, ...change(node) });
    const wrong = findings.filter(
      (_, index) => !lines[index]?.startsWith("ok ") && !sound.lines.includes(lines[index] ?? ""),
    );
    const reported = JSON.stringify(wrong);
    assert.ok(lines.includes(line), `${broken}: ${reported}`);
    const subjects = new Set(wrong.map((one) => one.check));
    assert.equal(subjects.size, 1, `${broken}: ${reported}`);
    assert.match(wrong[0]?.todo ?? "", todo);
    const fine = { KERNEL: !["both", "KERNEL"].includes(fails), VFIO: !["both", "VFIO"].includes(fails) };
    assert.deepEqual([works, code], [fine, fails === "none" ? 0 : 1], broken);
  }
});
