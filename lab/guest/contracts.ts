import { deviceAccessContracts } from "../../test/contracts/device-access.ts";
import { driverBindingContracts } from "../../test/contracts/driver-binding.ts";
import { withRealAdapter } from "../../test/contracts/real-adapter.ts";
import { timeSteps } from "../../test/contracts/step-times.ts";
import { sysfsContracts } from "../../test/contracts/sysfs.ts";
import { vfSettingsContracts } from "../../test/contracts/vf-settings.ts";
import { promisesOf, realTests } from "../real-tests.ts";
import { adapters } from "./hardware.ts";
import { holdVf } from "./hold-vf.ts";
import { runRealTest } from "./real-test.ts";
import type { Stage } from "./stage.ts";

/**
 * What is expected of a kernel, each by its sentence: the sandbox passes the very same. They want an adapter that is not in use,
 * so they come before the forwarder starts.
 */
export async function contracts(stage: Stage): Promise<void> {
  await withRealAdapter({ pf: adapters.left, vfDriver: "igbvf", numVfs: 2 }, async (subject) => {
    for (const [room, all] of Object.entries({ sysfs: sysfsContracts, drivers: driverBindingContracts })) {
      for (const [name, contract] of Object.entries(all))
        await stage.story(`${room}: ${name}`, () => contract(subject));
    }
    for (const [name, contract] of Object.entries(vfSettingsContracts)) {
      await stage.story(`settings: ${name}`, () => contract(subject));
    }
    const hold = (group: string) => holdVf({ group, address: subject.vf });
    for (const [name, contract] of Object.entries(deviceAccessContracts)) {
      await stage.story(`access: ${name}`, () => contract({ ...subject, hold }));
    }
    await stage.story("the steps of a connection are timed", async () => {
      for (const [step, times] of Object.entries(await timeSteps(subject))) {
        for (const ms of times) stage.stopwatch.add(step, ms);
      }
    });
  });
  const promises = promisesOf(stage.plan.kernel);
  for (const name of realTests)
    await stage.story(`test/real/${name} passes here too`, () => runRealTest(name, promises));
}
