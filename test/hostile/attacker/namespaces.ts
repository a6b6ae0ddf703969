// Attacks by what is in a pod's own network namespace.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type { Attacker } from "./target.ts";

const LINK = "nsm-1";
const NEIGHBOURS = 4_000;
const ADDRESSES = 200;

/** While the pod has its interface: neighbours, addresses and routes without number on it, with our mark on some. */
function* onLink(): Generator<string> {
  for (let at = 0; at < NEIGHBOURS; at += 1) {
    const address = `172.30.${at >> 8}.${at & 255}`;
    yield `neigh replace ${address} lladdr 02:00:00:00:00:01 dev ${LINK} nud permanent`;
    if (at < ADDRESSES) yield `address add ${address}/32 dev ${LINK}`;
    if (at < ADDRESSES) yield `route replace 172.31.${at}.0/24 dev ${LINK} table ${5_000 + at} proto 110`;
  }
}

/** The pod's namespace is crowded already; this one makes it worse as long as it can. */
export const crowdedNamespace: Attacker = async ({ netns }, signal) => {
  let rounds = 0;
  for (; !signal.aborted; rounds += 1) {
    const child = spawn("nsenter", [`--net=${netns}`, "ip", "-force", "-batch", "-"], {
      stdio: ["pipe", "ignore", "ignore"],
    });
    child.stdin.on("error", () => {}).end([...onLink()].join("\n"));
    await once(child, "close");
    await sleep(20);
  }
  return `${rounds} rounds`;
};
