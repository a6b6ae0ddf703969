// What takes the processors while innocents are measured: an attacker, or burners that take the same and attack nothing.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { AttackerProcess } from "../test/hostile/attacker-process.ts";
import { burnerShares, groupCpuMs } from "./cpu-share.ts";

const BURNER = join(import.meta.dirname, "burner.ts");

/** Within that an attacker ends by itself, or by force. */
const GRACE_MS = 1_000;

/** Something that takes CPU time. */
export interface Load {
  /** So far, in ms. */
  cpuMs(): number;
  /** Ends it; answers with what it says of itself. */
  stop(): Promise<string>;
}

export const noLoad: Load = { cpuMs: () => 0, stop: async () => "" };

export function loadOfAttacker(attacker: AttackerProcess): Load {
  return {
    cpuMs: () => cpuMsOfGroup(attacker.group),
    stop: () => attacker.stop({ graceMs: GRACE_MS }),
  };
}

/** So many processors, taken by as few processes as can. */
export async function startBurners(processors: number): Promise<Load> {
  const burners = burnerShares(processors).map(startBurner);
  await Promise.all(burners.map((burner) => Promise.race([once(burner.stdout, "data"), once(burner, "close")])));
  return {
    cpuMs: () => burners.reduce((sum, { pid }) => sum + cpuMsOfGroup(pid), 0),
    stop: async () => {
      await Promise.all(burners.map(endBurner));
      return "";
    },
  };
}

/** In a group of its own, which is counted as an attacker's is. */
function startBurner(share: number) {
  const args = ["--disable-warning=ExperimentalWarning", BURNER, String(share)];
  return spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"], detached: true });
}

async function endBurner(burner: ChildProcess): Promise<void> {
  if (burner.exitCode !== null || burner.signalCode !== null) return;
  const closed = once(burner, "close");
  burner.kill("SIGKILL");
  await closed;
}

function cpuMsOfGroup(group: number | undefined): number {
  if (group === undefined) return 0;
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return groupCpuMs(pids.map(readStat), group);
}

function readStat(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return ""; // ended since
  }
}
