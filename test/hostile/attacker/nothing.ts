// No attacks: what an innocent's time is on this machine without any.
import { randomBytes } from "node:crypto";
import { setImmediate as turn } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { aborted } from "./session.ts";
import type { Attacker } from "./target.ts";

export const nothing: Attacker = async (_, signal) => {
  await aborted(signal);
  return "";
};

/** The time of one processor: what any attack may take from a machine, whatever is attacked. */
export const computing: Attacker = async (_, signal) => {
  const text = randomBytes(100_000);
  let rounds = 0;
  for (; !signal.aborted; rounds += 1) {
    gzipSync(text);
    await turn();
  }
  return `${rounds} rounds`;
};
