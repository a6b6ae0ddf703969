import assert from "node:assert/strict";
import test from "node:test";
import { readCommand } from "./cli.ts";
import { version } from "./version.ts";

test("readCommand() runs without arguments", () => {
  assert.deepEqual(readCommand([]), { kind: "run" });
});

test("readCommand() prints the version", () => {
  assert.deepEqual(readCommand(["--version"]), { kind: "print", text: `forwarder ${version}\n` });
});

test("readCommand() prints help with each variable and its default", () => {
  const { text } = readCommand(["-h"]) as { text: string };
  assert.match(text, /^ {2}NSM_DIAL_TIMEOUT +1s$/m);
  assert.match(text, /^ {2}SPIFFE_ENDPOINT_SOCKET$/m);
});

for (const args of [["discovre"], ["--nope"], ["--help=3"], ["-x"]]) {
  test(`readCommand() refuses ${args.join(" ")} in one line`, () => {
    const command = readCommand(args) as { kind: string; text: string };
    assert.equal(command.kind, "wrong");
    assert.match(command.text, /^forwarder: .*; see forwarder --help\n$/);
  });
}
