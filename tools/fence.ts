import { spawnSync } from "node:child_process";

/**
 * The words before a command that give it network and mount namespaces of its own, as far as this user may: root does, others as
 * root of a user namespace of their own. None where the machine refuses, and a sentence to `tell`.
 */
export function fence(tell: (line: string) => void): readonly string[] {
  const asRoot = process.getuid?.() === 0 ? [] : ["--map-root-user"];
  const inside = ["unshare", ...asRoot, "--net", "--mount", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"];
  const [command = "", ...args] = inside;
  if (spawnSync(command, [...args, "true"], { stdio: "ignore" }).status === 0) return inside;
  tell("The tests run without namespaces of their own: this needs unshare and ip, and the right to make namespaces");
  return [];
}
