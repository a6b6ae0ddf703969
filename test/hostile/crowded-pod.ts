import { spawn } from "node:child_process";
import { once } from "node:events";
import type { SandboxPod } from "../../sandbox/sandbox.ts";

const ROUTES = 200_000;
const RULES = 1_000;
const LINKS = 50;

/** What a router has in its own namespace, and more of it. */
function* crowd(): Generator<string> {
  for (let at = 0; at < LINKS; at += 1) yield `link add far${at} type veth peer name near${at}`;
  for (let at = 0; at < ROUTES; at += 1) yield `route add blackhole 10.${at >> 16}.${(at >> 8) & 255}.${at & 255}/32`;
  for (let at = 0; at < RULES; at += 1)
    yield `rule add pref ${1_000 + at} from 11.0.${at >> 8}.${at & 255} lookup ${300 + at}`;
}

/** Where another process finds the namespace of a pod of this one. */
export function netnsPathOf({ pod }: SandboxPod): string {
  return `/proc/${process.pid}/fd/${pod.netns.fd.number}`;
}

/** Fills the pod's namespace. @throws when it does not take all. */
export async function fillNamespace(pod: SandboxPod): Promise<void> {
  const child = spawn("nsenter", [`--net=${netnsPathOf(pod)}`, "ip", "-batch", "-"], {
    stdio: ["pipe", "ignore", "inherit"],
  });
  const closed = once(child, "close");
  child.stdin.end([...crowd()].join("\n"));
  const [code] = await closed;
  if (code !== 0) throw new Error(`Cannot fill the namespace of pod ${pod.name}: ip ended with ${code}`);
}
