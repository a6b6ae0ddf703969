// A sandbox without links of its own, and a forwarder on it, started wherever this process is. Run in a network namespace that is
// another's it must be refused. Says in one line of JSON what came of it.
import { SANDBOX_RESOURCE, Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { silentLog as log } from "../../src/telemetry/index.ts";

const sandbox = await Sandbox.start({ log, clock, callTimeoutMs: 5_000 });
let said = "served";
try {
  await sandbox.startForwarder();
  await sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.some(({ healthy }) => healthy));
  const { client } = await sandbox.startPod("victim");
  await client.request();
} catch (error) {
  said = String(error);
}
process.stdout.write(`${JSON.stringify(said)}\n`);
process.exit(0); // what it has begun ends with it
