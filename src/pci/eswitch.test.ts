import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../async/index.ts";
import { Errno, type EswitchMode, type HostFiles, KernelError } from "../kernel/index.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { parsePciAddress } from "./address.ts";
import { eswitchModeOf, type QueryEswitchMode } from "./eswitch.ts";

const pf = parsePciAddress("0000:3b:00.0");

/** A PF with so many representors beside its own network device. */
function devicesWith(representors: number): HostFiles {
  const names = ["ens6f0", ...Array.from({ length: representors }, (_, index) => `rep${index}`)];
  return {
    list: async () => names,
    readLink: async () => "../../../bus/pci/drivers/mlx5_core",
    async readText(path: string) {
      const [, index] = /rep(\d+)\/phys_port_name$/.exec(path) ?? [];
      if (index === undefined) throw new KernelError(`read ${path}`, Errno.EOPNOTSUPP);
      return `pf0vf${index}`;
    },
  } as unknown as HostFiles;
}

const says = (mode: EswitchMode | undefined) => async () => mode;
const refuses: QueryEswitchMode = async () => {
  throw new KernelError("read the switch mode", Errno.EPERM);
};

for (const [why, query, representors, mode] of [
  ["devlink says so", says("switchdev"), 0, "switchdev"],
  ["devlink says so, whatever else is there", says("legacy"), 2, "legacy"],
  ["devlink does not say, and there are representors", says(undefined), 2, "switchdev"],
  ["devlink does not say, and there are none", says(undefined), 0, "legacy"],
  ["devlink may not be asked, and there are representors", refuses, 1, "switchdev"],
  ["there is no devlink, and there are none", undefined, 0, "legacy"],
] as const) {
  test(`eswitchModeOf() says ${mode} because ${why}`, async () => {
    const log = recordingLog();
    const options = { devices: devicesWith(representors), queryEswitchMode: query, clock: systemClock, log };
    assert.equal(await eswitchModeOf(pf, options), mode);
    assert.equal(log.of("eswitch-mode-unknown").length, query === refuses ? 1 : 0);
  });
}

test("eswitchModeOf() does not wait for a driver that writes its firmware", async () => {
  const log = recordingLog();
  const clock = { ...systemClock, sleep: async () => {} };
  const hangs: QueryEswitchMode = () => new Promise(() => {});
  assert.equal(await eswitchModeOf(pf, { devices: devicesWith(1), queryEswitchMode: hangs, clock, log }), "switchdev");
  assert.match(String(log.of("eswitch-mode-unknown")[0]?.["error"]), /no answer within 2000 ms/);
});

test("eswitchModeOf() leaves no timer behind when the driver has answered or refused", async () => {
  const clock = new HandClock();
  for (const query of [says("legacy"), refuses]) {
    await eswitchModeOf(pf, { devices: devicesWith(0), queryEswitchMode: query, clock, log: recordingLog() });
    assert.equal(clock.timerCount, 0);
  }
});
