import { type StdioOptions, spawn, spawnSync } from "node:child_process";
import type { Server } from "node:net";
import { inOwnNetns } from "../own-netns.ts";
import { handOver, openPageDoor, receiveDoor } from "./page-door.ts";

/** What this process may do with network links. */
export type Privileges =
  /** Another process ran the demo, with the rights it needs. */
  | { readonly kind: "handed-on"; readonly exitCode: number }
  /** We run it: with real links, or without and for this reason. */
  | {
      readonly kind: "here";
      readonly whyNoLinks: string | undefined;
      /** Listens where the demo was started; undefined when that is this namespace, or no page was asked for. */
      readonly pageDoor: Server | undefined;
    };

/** Set in the process that runs inside the namespace made for it. It only ends the handing on: a forwarder asks the kernel. */
const MARK = "SANDBOX_UNSHARED";

/**
 * Gets the rights to make network links, and a network namespace to be in while doing it: the same command runs again in one of its own,
 * for a user that is not root as root of a user namespace of its own, where the kernel allows that.
 * @throws when the page is wanted, and nothing can listen on loopback here.
 */
export async function enterOwnNamespaces(
  command: readonly string[],
  { isPageWanted }: { readonly isPageWanted: boolean },
): Promise<Privileges> {
  if (process.env[MARK] !== undefined) {
    const pageDoor = isPageWanted && process.connected ? await receiveDoor() : undefined;
    return { kind: "here", whyNoLinks: undefined, pageDoor };
  }
  const [unshare = "", ...words] = inOwnNetns();
  const tried = spawnSync(unshare, [...words, "true"], { stdio: "ignore" });
  if (tried.status !== 0) return { kind: "here", whyNoLinks: refusal(tried.error), pageDoor: undefined };
  const args = [...words, process.execPath, ...process.execArgv, ...command];
  const door = isPageWanted ? await openPageDoor() : undefined;
  const stdio: StdioOptions = ["inherit", "inherit", "inherit", ...(door ? (["ipc"] as const) : [])];
  const child = spawn(unshare, args, { stdio, env: { ...process.env, [MARK]: "1" } });
  if (door) handOver(door, child);
  // The terminal sends Ctrl-C to the child too; this process only waits for it. Other signals come to us alone.
  process.on("SIGINT", () => {});
  for (const signal of ["SIGTERM", "SIGHUP"] as const) process.on(signal, () => child.kill(signal));
  const exitCode = await new Promise<number>((resolve) => child.on("exit", (code) => resolve(code ?? 1)));
  return { kind: "handed-on", exitCode };
}

function refusal(error: Error | undefined): string {
  if (error !== undefined) return `this machine has no unshare (${error.message})`;
  const flags = process.getuid?.() === 0 ? "-n" : "-rn";
  return `this machine refuses "unshare ${flags}" (not root, or user namespaces are off), or has no ip (iproute2)`;
}
