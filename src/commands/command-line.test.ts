import assert from "node:assert/strict";
import test from "node:test";
import { commands } from "./commands.ts";
import { runCommandLine } from "./run.ts";
import { someSurroundings } from "./testing/fakes.ts";

const refused = [
  { args: ["discovre"], says: 'forwarder: there is no command "discovre"; see forwarder --help\n' },
  { args: ["--nope"], says: "forwarder: Unknown option '--nope'; see forwarder --help\n" },
  {
    args: ["discover", "--nope"],
    says: "forwarder discover: Unknown option '--nope'; see forwarder discover --help\n",
  },
  {
    args: ["discover", "x"],
    says: 'forwarder discover: there is nothing to do with "x"; see forwarder discover --help\n',
  },
];
for (const { args, says } of refused) {
  test(`runCommandLine() refuses ${args.join(" ")} in one line`, async () => {
    const around = someSurroundings();
    assert.deepEqual([await runCommandLine(args, around), around.err.text, around.out.text], [2, says, ""]);
  });
}

test("runCommandLine() prints the version", async () => {
  const around = someSurroundings();
  assert.deepEqual([await runCommandLine(["--version"], around), around.out.text], [0, "forwarder 1.2.3\n"]);
});

test("runCommandLine() prints a help that names every command and variable", async () => {
  const around = someSurroundings();
  assert.equal(await runCommandLine(["-h"], around), 0);
  for (const { name } of commands) assert.match(around.out.text, new RegExp(`^  forwarder ${name} `, "m"));
  assert.match(around.out.text, /^ {2}NSM_NAME {2}sriov-forwarder$/m);
});

for (const { name, options, examples } of commands) {
  for (const args of [
    [name, "--help"],
    ["help", name],
  ]) {
    test(`runCommandLine() prints the help of ${args.join(" ")} with its options and examples`, async () => {
      const around = someSurroundings();
      assert.equal(await runCommandLine(args, around), 0);
      for (const option of options) assert.ok(around.out.text.includes(`--${option.name}`), option.name);
      assert.ok(examples.length > 0);
      for (const { line } of examples) assert.ok(around.out.text.includes(line), line);
    });
  }
}
