import { spawn, spawnSync } from "node:child_process";

/** What this process may do with network links. */
export type Privileges =
  /** Another process ran the demo, with the rights it needs. */
  | { readonly kind: "handed-on"; readonly exitCode: number }
  /** We run it: with real links, or without and for this reason. */
  | { readonly kind: "here"; readonly whyNoLinks: string | undefined };

/** Set in the process that runs inside the namespaces made for it. */
const MARK = "SANDBOX_UNSHARED";

/**
 * Gets the rights to make network links. Root has them. Anyone else runs the same command again as root of a user namespace
 * of its own, with a network namespace of its own, where the kernel allows that.
 */
export async function enterOwnNamespaces(command: readonly string[]): Promise<Privileges> {
  if (process.env[MARK] !== undefined) return { kind: "here", whyNoLinks: undefined };
  if (process.getuid?.() === 0) return { kind: "here", whyNoLinks: canUnshare(["-n"]) ? undefined : refusal("-n") };
  if (!canUnshare(["-rn"])) return { kind: "here", whyNoLinks: refusal("-rn") };
  const args = ["-rn", process.execPath, ...process.execArgv, ...command];
  const child = spawn("unshare", args, { stdio: "inherit", env: { ...process.env, [MARK]: "1" } });
  // The terminal sends Ctrl-C to the child too; this process only waits for it. Other signals come to us alone.
  process.on("SIGINT", () => {});
  for (const signal of ["SIGTERM", "SIGHUP"] as const) process.on(signal, () => child.kill(signal));
  const exitCode = await new Promise<number>((resolve) => child.on("exit", (code) => resolve(code ?? 1)));
  return { kind: "handed-on", exitCode };
}

function canUnshare(flags: readonly string[]): boolean {
  return spawnSync("unshare", [...flags, "true"], { stdio: "ignore" }).status === 0;
}

function refusal(flags: string): string {
  return `this machine refuses "unshare ${flags}" (not root, or user namespaces are off)`;
}
