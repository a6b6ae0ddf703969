import assert from "node:assert/strict";
import { test } from "node:test";
import { type HostFiles, KernelError } from "../kernel/index.ts";
import type { PciAddress } from "./address.ts";
import { iommuGroupMembers } from "./pci-files.ts";

/** Of the files of a node, only what a group is read by. */
function groupOf(classes: Readonly<Record<string, string>>): Pick<HostFiles, "list" | "readText"> {
  return {
    list: async () => Object.keys(classes),
    readText: async (path) => {
      const [address = ""] = path.split("/");
      const text = classes[address];
      if (text === undefined || text === "") throw new KernelError(`read ${path}`, 2);
      return text;
    },
  };
}

test("iommuGroupMembers() leaves the ports of the bus out, and nothing else", async () => {
  const files = groupOf({
    "0000:00:05.0": "0x060400",
    "0000:00:06.0": "0x060000",
    "0000:02:10.0": "0x020000",
    "0000:02:10.2": "", // gone meanwhile
  });
  const members = await iommuGroupMembers(files as HostFiles, "0000:02:10.0" as PciAddress);
  assert.deepEqual(members, ["0000:00:06.0", "0000:02:10.0", "0000:02:10.2"]);
});
