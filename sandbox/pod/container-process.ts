// A process of a pod's container, started by container.ts. Reads one command a line, answers with one line. What it does with
// VFIO is what cmd-nsc does, and the pod's application after it: sriov-behaviour §7.2.
import { closeSync, constants, mkdirSync, openSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { type DeviceNumber, KernelError, makeCharDevice } from "../../src/kernel/index.ts";
import type { ContainerAnswer, ContainerCommand } from "./container.ts";

/** The last one opened is closed first. */
const opened = new Map<string, number[]>();

function run(command: ContainerCommand): ContainerAnswer {
  switch (command.kind) {
    case "cgroup-dir": {
      // Every container of the pod: the last name becomes a wildcard. Empty on a unified host, whose line says nothing.
      const line = readFileSync("/proc/self/cgroup", "utf8")
        .split("\n")
        .find((one) => one.split(":")[1] === "devices");
      const path =
        line
          ?.split(":")[2]
          ?.replace(/[^/]*$/, "*")
          .replace(/^\//, "") ?? "";
      return { value: path };
    }
    case "make-node":
      mkdirSync(command.folder, { recursive: true });
      makeNode(`${command.folder}/${command.name}`, command.device);
      return {};
    case "open":
      opened.set(command.path, [...(opened.get(command.path) ?? []), openSync(command.path, constants.O_RDWR)]);
      return {};
    case "close": {
      const fd = opened.get(command.path)?.pop();
      if (fd !== undefined) closeSync(fd);
      return {};
    }
  }
}

/** One that is there is left alone. */
function makeNode(path: string, device: DeviceNumber): void {
  try {
    makeCharDevice(path, device, 0o666);
  } catch (error) {
    if (!(error instanceof KernelError) || error.code !== "EEXIST") throw error;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer: ContainerAnswer;
  try {
    answer = run(JSON.parse(line));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    answer = { error: code ?? message };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
