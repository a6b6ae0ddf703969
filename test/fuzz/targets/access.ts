// Device programs of other runtimes, which are rewritten, and the list of cgroup version 1.
import {
  type AllowBlock,
  encodeBlock,
  joinProgram,
  sortedDevices,
  splitProgram,
} from "../../../src/access/bpf/allow-block.ts";
import { allows, OPEN_READ_WRITE } from "../../../src/access/bpf/evaluate.ts";
import {
  decodeProgram,
  encodeProgram,
  instruction,
  isSameProgram,
  Op,
  type Program,
} from "../../../src/access/bpf/instruction.ts";
import { problemOf } from "../../../src/access/bpf/simple.ts";
import { unblind } from "../../../src/access/bpf/unblind.ts";
import { exactAccess, isAllowed, missingAccess, parseDevicesList } from "../../../src/access/devices-list.ts";
import type { DeviceNumber } from "../../../src/kernel/index.ts";
import { crunFilter } from "../../scenes/captured-filters.ts";
import { onlyNull, withAnyMknod } from "../../scenes/device-filters.ts";
import { hold, type Target, texts } from "../target.ts";

const devices: readonly DeviceNumber[] = [
  { major: 10, minor: 196 },
  { major: 511, minor: 3 },
];
const others: readonly DeviceNumber[] = [
  { major: 1, minor: 3 },
  { major: 0, minor: 0 },
  { major: 511, minor: 4 },
];
const block: AllowBlock = { devices: sortedDevices(devices), originalId: 17 };

/** What a program answers; undefined for one that the verifier would not have let pass. */
function answerOf(program: Program, device: DeviceNumber): boolean | undefined {
  try {
    return allows(program, { ...device, access: OPEN_READ_WRITE });
  } catch (error) {
    if (!/^Cannot run/.test((error as Error).message)) throw error;
    return undefined;
  }
}

/** Jumps back: the verifier lets no such device program pass, and here it would run to the limit of steps. */
function hasLoop(program: Program): boolean {
  return program.some(({ op, offset, imm }) => (op === Op.JUMP_FAR ? imm : offset) < 0 && [5, 6].includes(op & 7));
}

/** The verifier lets no program read a register that it has not written; changed ones do, so all but the context are written before. */
const writesRegisters = [0, 2, 3, 4, 5, 6, 7, 8, 9].map((dst) => instruction(Op.MOV64, { dst, imm: 0 }));

function checkJoined(program: Program): void {
  const rest = [...writesRegisters, ...program];
  const joined = joinProgram(block, rest);
  const again = splitProgram(joined);
  hold(isSameProgram(again.rest, rest), () => "is another program without us");
  hold(JSON.stringify(again.block) === JSON.stringify(block), () => "our part is another when it is read back");
  if (hasLoop(rest)) return;
  for (const device of devices) hold(answerOf(joined, device) === true, () => "does not let at what we allowed");
  for (const device of others) {
    hold(answerOf(joined, device) === answerOf(rest, device), () => "lets at something else than before");
  }
}

const blinded = [
  instruction(0xb7, { dst: 11, imm: 0x1234 }),
  instruction(0xa7, { dst: 11, imm: 0x1235 }),
  instruction(0xbf, { dst: 0, src: 11 }),
  instruction(Op.EXIT),
];

export const accessTargets: readonly Target[] = [
  {
    name: "device-program",
    says: "a BPF program on a pod's cgroup",
    seeds: [
      crunFilter,
      onlyNull,
      withAnyMknod(onlyNull),
      joinProgram(block, onlyNull),
      encodeBlock(block),
      blinded,
    ].map(encodeProgram),
    words: [encodeBlock(block).slice(0, 3), blinded.slice(0, 3)].map((part) => encodeProgram(part).toString("latin1")),
    refusals: [RangeError],
    run(input) {
      const bytes = input.subarray(0, input.length & ~7);
      const read = decodeProgram(bytes);
      hold(encodeProgram(read).equals(bytes), () => "is another program when it is written");
      const program = unblind(read);
      const problem = problemOf(program);
      const { block: found, rest } = splitProgram(program);
      hold(rest.length <= program.length, () => "has grown");
      if (problem !== undefined) return problem.replace(/\d+|0x[0-9a-f]+/g, "#").slice(0, 60);
      if (!found && program.length > 0) checkJoined(program);
      return `${found?.devices.length ?? "none"} ${answerOf(hasLoop(program) ? [] : program, { major: 1, minor: 3 })}`;
    },
  },
  {
    name: "devices-list",
    says: "devices.list of cgroup version 1",
    seeds: texts("a *:* rwm\n", "c 10:196 rwm\nb 8:0 r\nc *:3 rw\n"),
    words: ["a *:* rwm\n", "c 10:196 ", "\n", "*", "99999999999"],
    refusals: [],
    run(input) {
      const entries = parseDevicesList(input.toString("utf8"));
      const device = { major: 10, minor: 196 };
      const missing = missingAccess(entries, device);
      hold(isAllowed(entries, device) ? missing === "" : true, () => "lacks what is allowed");
      return `${Math.min(entries.length, 4)} ${missing} ${exactAccess(entries, device).slice(0, 4)}`;
    },
  },
];
