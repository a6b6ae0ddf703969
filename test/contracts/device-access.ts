// What holds of a VFIO VF that a process has open: who else can open it, and who waits. Real where a program opens group,
// container and device; the pretend machine has one switch for the three.
import assert from "node:assert/strict";
import { KernelError } from "../../src/kernel/index.ts";
import { bindTo, type DriverSubject, driverOf, untilKernel } from "./driver-binding.ts";

/** Also with a process that can open the VF. */
export interface AccessSubject extends DriverSubject {
  /** Opens the VF, which is bound to vfio-pci; resolves when it is open. */
  hold(group: string): Promise<{ close(): Promise<void> }>;
}

/** Every contract by its sentence; each leaves the VF with its kernel driver. */
export const deviceAccessContracts: Readonly<Record<string, (subject: AccessSubject) => Promise<void>>> = {
  "a group that a process has open is refused to others, and is free when it is closed": async (subject) => {
    const group = await toVfio(subject);
    assert.equal(await subject.vfio.heldBy(group), undefined);
    const holder = await subject.hold(group);
    assert.notEqual(await subject.vfio.heldBy(group), undefined);
    await assert.rejects(subject.hold(group));
    await holder.close();
    await untilKernel("no process holds the group", async () => (await subject.vfio.heldBy(group)) === undefined);
    await bindTo(subject, subject.kernelDriver);
  },
  "an unbind waits for the process that has the VF open, which is without a driver meanwhile, and the next bind too":
    async (subject) => {
      const group = await toVfio(subject);
      const holder = await subject.hold(group);
      await timesOut(subject.drivers.writeText("vfio-pci/unbind", subject.vf, { limitMs: 300 }));
      assert.equal(await driverOf(subject), undefined);
      assert.notEqual(await subject.vfio.heldBy(group), undefined);
      await timesOut(subject.drivers.writeText("vfio-pci/bind", subject.vf, { limitMs: 300 }));
      await holder.close();
      // What has no caller any more is done all the same, in its order.
      await untilKernel("the late bind is done", async () => (await driverOf(subject)) === "vfio-pci");
      await bindTo(subject, subject.kernelDriver);
    },
};

function timesOut(write: Promise<void>): Promise<void> {
  return assert.rejects(write, (error) => error instanceof KernelError && error.code === "ETIMEDOUT");
}

/** Answers with the name of the VF's group, whose node is there. */
async function toVfio(subject: AccessSubject): Promise<string> {
  await bindTo(subject, "vfio-pci");
  const group = (await subject.devices.readLink(`${subject.vf}/iommu_group`)).split("/").at(-1) ?? "";
  await untilKernel("the group has its node", () => subject.vfio.exists(group));
  return group;
}
