import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** How a guest stops at the very instant that it means: nothing of it runs any more, and it waits for its power to be cut. */
const STOPPED = "Kernel panic - not syncing: sysrq triggered crash";

/**
 * What a guest that has stopped needs to know when it is booted again: guest/power-switch.ts. Undefined as long as it runs.
 * It can write no file any more, so it is in what the kernel says.
 */
export function rememberedAtStop(out: string): readonly unknown[] | undefined {
  const path = join(out, "console.log");
  const said = existsSync(path) ? readFileSync(path, "utf8") : "";
  if (!said.includes(STOPPED)) return undefined;
  return Array.from(said.matchAll(/ lab remembers (.*)$/gm), ([, text = ""]) => JSON.parse(text.trim()) as unknown);
}
