import assert from "node:assert/strict";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import type { LabNode } from "./node.ts";
import { eventually } from "./waiting.ts";

/** What a forwarder keeps while connections stand, and must not keep when they have gone. */
export interface LeftOver {
  /** Network namespaces that it has open. */
  readonly namespaces: number;
  /** Files that it has open, but for sockets and its event loop's. */
  readonly files: readonly string[];
  /** Keys of its journal. */
  readonly journal: readonly string[];
  /** On its status page. */
  readonly connections: readonly unknown[];
}

/** What is there at two looks in a row. */
export async function untilSettled(node: LabNode): Promise<LeftOver> {
  let last: LeftOver | undefined;
  const observe = async () => {
    const [before, now] = [last, await leftOver(node)];
    last = now;
    return { now, isSame: isDeepStrictEqual(before, now) };
  };
  return (await eventually(observe, ({ isSame }) => isSame)).now;
}

/** Until nothing is there but what was. The forwarder reads files of the kernel at any time: now, or when it had settled. */
export async function untilLeftOver(node: LabNode, settled: LeftOver, when: string): Promise<void> {
  const observe = () => leftOver(node);
  await eventually(observe, (now) => isNoMore(now, settled)).catch(async () =>
    assert.deepEqual(await leftOver(node), settled, when),
  );
}

/** Whether nothing is there that was not: a file can be missing. */
export function isNoMore(now: LeftOver, settled: LeftOver): boolean {
  const { namespaces, files, ...others } = now;
  const { namespaces: mostNamespaces, files: known, ...settledOthers } = settled;
  const left = [...known];
  const isKnown = (file: string) => left.includes(file) && left.splice(left.indexOf(file), 1).length > 0;
  return namespaces <= mostNamespaces && files.every(isKnown) && isDeepStrictEqual(others, settledOthers);
}

/** Reads it again. */
async function leftOver(node: LabNode): Promise<LeftOver> {
  const open = openFilesOf(node.forwarder.pid);
  const { connections } = (await node.status()) as { readonly connections: readonly unknown[] };
  return {
    namespaces: open.filter((target) => target.startsWith("net:")).length,
    files: open.filter((target) => target.startsWith("/") && !target.startsWith("/out/")).sort(),
    journal: journalKeys(node.statePath),
    connections,
  };
}

function openFilesOf(pid: number): readonly string[] {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).map((fd) => {
    try {
      return readlinkSync(`${folder}/${fd}`);
    } catch {
      return ""; // closed since
    }
  });
}

/** Records of the journal: "NSJ", a version byte, the length of the payload and a checksum (32 bits each), then `[key, value]`. */
function journalKeys(folder: string): readonly string[] {
  const keys = new Set<string>();
  const bytes = readFileSync(`${folder}/journal`);
  for (let at = 0; at < bytes.length; ) {
    const end = at + 12 + bytes.readUInt32LE(at + 4);
    const [key, ...value] = JSON.parse(bytes.toString("utf8", at + 12, end)) as readonly [string, ...unknown[]];
    if (value.length > 0) keys.add(key);
    else keys.delete(key);
    at = end;
  }
  return [...keys].sort();
}
