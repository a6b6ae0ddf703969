// Files of kubelet, of the operator, of the kernel.

import type { HostFiles } from "../../../src/kernel/index.ts";
import { KernelError } from "../../../src/kernel/index.ts";
import { parseUnixListeners } from "../../../src/kernel/unix-listeners.ts";
import { parseCheckpoint } from "../../../src/kubelet/checkpoint.ts";
import { isPciAddress, type PciAddress } from "../../../src/pci/address.ts";
import { parsePfConfig } from "../../../src/pci/pf-config.ts";
import { PfConfigError } from "../../../src/pci/pf-config-form.ts";
import {
  iommuGroupMembers,
  netdevIndex,
  numaNodeOf,
  observeVf,
  virtualFunctionLinks,
} from "../../../src/pci/read-sysfs.ts";
import { hold, type Target, texts } from "../target.ts";

const checkpoint = JSON.stringify({
  Data: {
    PodDeviceEntries: [
      { PodUID: "u1", ContainerName: "c", ResourceName: "a/b", DeviceIDs: { "0": ["sriov-1"], "-1": ["sriov-2"] } },
      { PodUID: "u2", ContainerName: "c", ResourceName: "a/b", DeviceIDs: ["sriov-3"] },
    ],
    RegisteredDevices: { "a/b": ["sriov-1"] },
  },
  Checksum: 1,
});

const pfConfig = `physicalFunctions:
  0000:01:00.0: &pf
    pfKernelDriver: pf-driver
    vfKernelDriver: vf-driver
    capabilities: [intel, 10G]
    serviceDomains: [service.domain.1]
    numVfs: 4
    settings: { spoofCheck: true, linkState: auto, maxTxRateMbps: 100 }
    virtualFunctions:
      - { address: 0000:01:00.1, iommuGroup: 1 }
  0000:02:00.0: *pf
`;

/** A folder of /sys/bus/pci/devices in which every text, link and name is the input. */
function filesOf(text: string): HostFiles {
  const lines = text.split("\n");
  const missing = async () => {
    throw new KernelError("read", 2);
  };
  return {
    readText: async () => lines[0] ?? "",
    readLink: async () => lines[1] ?? "",
    list: async () => lines,
    exists: async () => true,
    writeText: missing,
    inode: missing,
    deviceNumber: missing,
    heldBy: missing,
  } as HostFiles;
}

export const fileTargets: readonly Target[] = [
  {
    name: "checkpoint",
    says: "kubelet's record of devices",
    seeds: texts(checkpoint, '{"Data":{"PodDeviceEntries":null}}'),
    words: ['"PodUID":', "null", "[", "{", "}", "]", '"__proto__":{"PodUID":"x"}', "1e999", "\\u0000", ","],
    refusals: [],
    run(input) {
      const holders = parseCheckpoint(input.toString("utf8"));
      if (!holders) return "none";
      for (const { podUid, container, resource } of holders.values()) {
        hold(
          [podUid, container, resource].every((text) => typeof text === "string"),
          () => "has something else than texts",
        );
      }
      return `${holders.size}`;
    },
  },
  {
    name: "pf-config",
    says: "the operator's list of PFs, in YAML",
    seeds: texts(pfConfig, "{}", "physicalFunctions: {}"),
    words: [
      "&a ",
      "*a",
      "<<: ",
      "- ",
      ": ",
      "\n  ",
      "!!binary ",
      "? ",
      "|\n",
      "{",
      "}",
      "[",
      "]",
      "# ",
      "---\n",
      "'",
      '"',
      "1e3",
      "0x",
    ],
    growsTo: 16 * 1024,
    refusals: [PfConfigError],
    run(input) {
      const { physicalFunctions } = parsePfConfig(input.toString("utf8"), "pci.config");
      for (const { address, numVfs } of physicalFunctions) {
        hold(isPciAddress(address), () => `${address} is no PCI address`);
        hold(numVfs === undefined || (Number.isInteger(numVfs) && numVfs >= 0), () => `${numVfs} VFs`);
      }
      return `${physicalFunctions.length}`;
    },
  },
  {
    name: "sysfs",
    says: "texts, links and names below /sys/bus/pci",
    seeds: texts(
      "3\n../../../bus/pci/drivers/ixgbevf\nvirtfn0\nvirtfn1",
      "0\n../0000:3b:02.0\nvirtfn10",
      "-1\n../../kernel/iommu_groups/17",
    ),
    words: ["virtfn", "0000:3b:02.1", "/", "\n", "virtio-pci", "..", "99999999999999999999"],
    refusals: [KernelError],
    async run(input) {
      const files = filesOf(input.toString("utf8"));
      const pf = "0000:3b:00.0" as PciAddress;
      const { iommuGroup } = await observeVf(files, pf);
      hold(iommuGroup === undefined || iommuGroup >= 0, () => "a group below zero");
      const node = await numaNodeOf(files, pf);
      await netdevIndex(files, pf, "eth0");
      await iommuGroupMembers(files, pf);
      const links = await virtualFunctionLinks(files, pf).catch((error: unknown) => {
        if (error instanceof TypeError) return undefined;
        throw error;
      });
      if (!links) return "leads elsewhere";
      hold(
        links.every(({ address }) => isPciAddress(address)),
        () => "leads to no PCI function",
      );
      return `${iommuGroup !== undefined} ${node !== undefined} ${Math.min(links.length, 3)}`;
    },
  },
  {
    name: "unix-listeners",
    says: "/proc/net/unix, with paths that any process names",
    seeds: texts(
      "Num RefCount Protocol Flags Type St Inode Path\n0000: 00000002 00000000 00010000 0001 01 17 /run/a.sock\n",
    ),
    words: [" ", "\n", "00010000", "@", "/"],
    refusals: [],
    run: (input) => String(Math.min(parseUnixListeners(input.toString("utf8")).length, 4)),
  },
];
