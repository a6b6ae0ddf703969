import assert from "node:assert/strict";
import { test } from "node:test";
import { Screen, type Terminal, wrap } from "./screen.ts";

function fakeTerminal(shape: Omit<Terminal, "write"> = {}): Terminal & { text: string } {
  return {
    ...shape,
    text: "",
    write(text) {
      this.text += text;
    },
  };
}

test("Screen writes plain lines, and no line of a running step, where there is no terminal", () => {
  const terminal = fakeTerminal({ columns: 60 });
  const screen = new Screen(terminal, { noColour: false });
  screen.begin("node up");
  screen.done("node up", 12.4, "two cards with eight functions each");
  screen.failed("ping", 3, { expected: "an answer", actual: "silence" });
  assert.equal(
    terminal.text,
    [
      "  ✓ node up                       12 ms  two cards with",
      "                                         eight functions",
      "                                         each",
      "  ✗ ping                         3.0 ms  does not hold",
      "        expected: an answer",
      "       but it is: silence",
      "",
    ].join("\n"),
  );
});

test("Screen colours and rewrites on a terminal, by default not to colour", () => {
  const terminal = fakeTerminal({ isTTY: true, columns: 80 });
  new Screen(terminal, { noColour: false }).done("x", 1, "y");
  assert.ok(terminal.text.startsWith("\r\x1b[K  \x1b[32m✓\x1b[39m x"));
  const plain = fakeTerminal({ isTTY: true, columns: 80 });
  new Screen(plain, { noColour: true }).done("x", 1, "y");
  assert.ok(plain.text.startsWith("\r\x1b[K  ✓ x"));
});

test("Screen.table() lines the columns up", () => {
  const terminal = fakeTerminal();
  new Screen(terminal, { noColour: true }).table(["a", "long"], [["wide cell", "b"]]);
  assert.equal(terminal.text, "\n  a          long\n  wide cell  b\n");
});

test("wrap() breaks at blanks and leaves long words whole", () => {
  assert.deepEqual(wrap("aa bb ccccccc d", 5), ["aa bb", "ccccccc", "d"]);
});
