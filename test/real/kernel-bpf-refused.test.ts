import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { needs } from "../needs.ts";

const urlOf = (path: string) => JSON.stringify(new URL(`../../${path}`, import.meta.url).href);
const SCRIPT = `
  import { encodeProgram } from ${urlOf("src/access/bpf/instruction.ts")};
  import { loadDeviceProgram } from ${urlOf("src/kernel/index.ts")};
  import { onlyNull } from ${urlOf("test/scenes/device-filters.ts")};
  try {
    loadDeviceProgram(encodeProgram(onlyNull), "refused");
  } catch (error) {
    process.stdout.write(error.message);
  }
`;

test("loadDeviceProgram() says what may be missing where the kernel only says EPERM", (t) => {
  if (!needs(t, "root", "bpf")) return;
  const node = [process.execPath, "--input-type=module", "-e", SCRIPT];
  const { stdout } = spawnSync("setpriv", ["--bounding-set=-sys_admin,-bpf", ...node], { encoding: "utf8" });
  assert.match(stdout, /needs CAP_BPF or CAP_SYS_ADMIN; before Linux 5\.11 also .* RLIMIT_MEMLOCK .* \(EPERM\)/);
});
