// A process that takes so much of a processor and does nothing with it: the load of an attack, without the attack.
// Its argument is the share, 0 to 1; it ends when its standard input does.
import { setTimeout as sleep } from "node:timers/promises";
import { BURN_MS, burnNowMs } from "./cpu-share.ts";

const share = Number(process.argv[2]);
process.stdin.resume().on("end", () => process.exit(0));

const cpuMs = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
};

// What the start took is no part of its share.
const [beganMs, before] = [performance.now(), cpuMs()];
process.stdout.write("begins\n");
for (;;) {
  const now = performance.now();
  const burnMs = burnNowMs({ share, elapsedMs: now - beganMs, usedMs: cpuMs() - before });
  if (burnMs === 0) await sleep(BURN_MS);
  while (performance.now() < now + burnMs);
  await sleep(0);
}
