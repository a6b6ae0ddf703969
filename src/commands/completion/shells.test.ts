import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import test from "node:test";
import { commands } from "../commands.ts";
import { runCommandLine } from "../run.ts";
import { someSurroundings } from "../testing/fakes.ts";
import { shells } from "./shells.ts";

/** What bash offers for the last of the words. */
function offered(...words: string[]): readonly string[] {
  const line = `COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length - 1}`;
  const script = `${shells.bash(commands)}\n${line}; _forwarder; printf '%s\\n' "\${COMPREPLY[@]}"`;
  // With a socket as its input bash takes itself for a remote shell, and reads the machine's own settings.
  const { stdout, stderr, status } = spawnSync("bash", ["--norc", "-uc", script], { encoding: "utf8" });
  assert.deepEqual([status, stderr], [0, ""]);
  return stdout.split("\n").filter(Boolean);
}

const rows = [
  { typed: ["forwarder", "dis"], offers: ["discover"] },
  { typed: ["forwarder", "--v"], offers: ["--version"] },
  { typed: ["forwarder", "check", "--"], offers: ["--mechanism", "--quiet", "--json", "--help"] },
  { typed: ["forwarder", "check", "-m", ""], offers: ["KERNEL", "VFIO", "kernel", "vfio"] },
  { typed: ["forwarder", "check", "-q", "--mechanism", "V"], offers: ["VFIO"] },
  { typed: ["forwarder", "completion", "f"], offers: ["fish"] },
  { typed: ["forwarder", "discover", "--pf", ""], offers: [] },
  { typed: ["forwarder", "unheard-of", ""], offers: [] },
];
for (const { typed, offers } of rows) {
  test(`bash offers ${offers.join(" ") || "nothing"} after "${typed.join(" ")}"`, () => {
    assert.deepEqual(offered(...typed), offers);
  });
}

for (const shell of ["zsh", "fish"] as const) {
  test(`the ${shell} script names every command and option`, () => {
    const script = shells[shell](commands);
    for (const { name, options } of commands) {
      assert.ok(script.includes(name));
      for (const option of options) assert.match(script, new RegExp(`(--|-l )${option.name}\\b`));
    }
  });
}

test("completion prints the script of the shell, and refuses others", async () => {
  const around = someSurroundings();
  assert.deepEqual([await runCommandLine(["completion", "zsh"], around), around.out.text], [0, shells.zsh(commands)]);
  const refused = someSurroundings();
  assert.equal(await runCommandLine(["completion", "tcsh"], refused), 2);
  assert.match(refused.err.text, /SHELL is "tcsh": want bash or zsh or fish/);
});
