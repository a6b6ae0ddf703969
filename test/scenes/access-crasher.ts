// Grants and revokes as a process of its own, which kills itself at a step: `access-crasher.ts CGROUP_PATH UID JOURNAL STEP`.
// A step is a descriptor that is opened after the first record: there is one between any two writes.
import { writeFileSync } from "node:fs";
import { openDeviceAccess } from "../../src/access/index.ts";
import { systemClock } from "../../src/async/index.ts";
import { Fd } from "../../src/kernel/index.ts";
import { createMetrics, silentLog } from "../../src/telemetry/index.ts";
import { full, zero } from "./pod-cgroups.ts";

const [cgroupPath = "", uid = "", journal = "", step = ""] = process.argv.slice(2);
let steps = 0;
let isWriting = false;
Fd.trace = (what) => {
  if (!isWriting || what === "close") return;
  steps += 1;
  if (steps === Number(step)) process.kill(process.pid, "SIGKILL");
};

const access = openDeviceAccess({ cgroupPath, clock: systemClock, log: silentLog, metrics: createMetrics() });
const grant = access.open({
  connectionId: "c1",
  pod: { uid },
  cgroupDir: "",
  devices: [zero, full],
  async record(state) {
    writeFileSync(journal, JSON.stringify(state));
    isWriting = true;
  },
});
await grant.apply();
await grant.revoke();
isWriting = false;
writeFileSync(journal, "");
await access.close();
process.stdout.write(`${steps}\n`);
