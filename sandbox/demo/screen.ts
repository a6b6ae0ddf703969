/** Where the demo writes: standard output, or a fake of a test. */
export interface Terminal {
  write(text: string): void;
  /** Whether a person looks at it: lines may then be rewritten and coloured. */
  readonly isTTY?: boolean;
  /** Width in characters; 80 when it is not known. */
  readonly columns?: number;
}

type Paint = "green" | "red" | "dim" | "bold";
const codes: Record<Paint, readonly [number, number]> = { green: [32, 39], red: [31, 39], dim: [2, 22], bold: [1, 22] };

const WIDEST = 120;
const NARROWEST = 50;
const TITLE_WIDTH = 26;

/** Prints the demo: headings, steps as they happen, tables. Knows nothing of what they are about. */
export class Screen {
  readonly width: number;
  readonly #terminal: Terminal;
  readonly #isColoured: boolean;

  /** `noColour`: the person said so (https://no-color.org). */
  constructor(terminal: Terminal, options: { readonly noColour: boolean }) {
    this.#terminal = terminal;
    this.#isColoured = terminal.isTTY === true && !options.noColour;
    this.width = Math.max(NARROWEST, Math.min(WIDEST, terminal.columns || 80));
  }

  heading(text: string): void {
    this.#line("");
    this.#line(this.#paint("bold", text));
  }

  /** Running text, broken at the width of the screen. */
  text(text: string): void {
    for (const line of wrap(text, this.width)) this.#line(line);
  }

  /** A step has begun. Shown only where the line can be rewritten when it ends. */
  begin(title: string): void {
    if (this.#terminal.isTTY === true) this.#terminal.write(`  ${this.#paint("dim", "…")} ${title}`);
  }

  /** A step held: what it found, and how long it took. */
  done(title: string, tookMs: number, found: string): void {
    this.#step(this.#paint("green", "✓"), title, formatMs(tookMs), found);
  }

  /** A step did not hold: what should be, and what is. */
  failed(title: string, tookMs: number, failure: { readonly expected: string; readonly actual: string }): void {
    this.#step(this.#paint("red", "✗"), title, formatMs(tookMs), this.#paint("red", "does not hold"));
    this.#indented("expected: ", failure.expected);
    this.#indented("but it is: ", failure.actual);
  }

  /** A step that was not tried, and why. */
  skipped(title: string, why: string): void {
    this.#step(this.#paint("dim", "–"), title, "", why);
  }

  /** Rows under their headings, in columns; a row that is too wide for the screen is cut. */
  table(headings: readonly string[], rows: readonly (readonly string[])[]): void {
    const widths = headings.map((heading, at) =>
      Math.max(...[heading, ...rows.map((row) => row[at] ?? "")].map((cell) => cell.length)),
    );
    const format = (row: readonly string[]) =>
      `  ${row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join("  ")}`.trimEnd().slice(0, this.width);
    this.#line("");
    this.#line(this.#paint("dim", format(headings)));
    for (const row of rows) this.#line(format(row));
  }

  #step(mark: string, title: string, time: string, found: string): void {
    if (this.#terminal.isTTY === true) this.#terminal.write("\r\x1b[K");
    const start = `  ${mark} ${title.padEnd(TITLE_WIDTH)} ${time.padStart(8)}  `;
    const margin = 4 + TITLE_WIDTH + 11;
    const [first = "", ...others] = wrap(found, this.width - margin);
    this.#line(`${start}${first}`.trimEnd());
    for (const line of others) this.#line(`${" ".repeat(margin)}${line}`);
  }

  #indented(label: string, text: string): void {
    const [first = "", ...others] = text.split("\n").flatMap((line) => wrap(line, this.width - 18));
    this.#line(`      ${label.padStart(12)}${first}`);
    for (const line of others) this.#line(`${" ".repeat(18)}${line}`);
  }

  #line(text: string): void {
    this.#terminal.write(`${text}\n`);
  }

  #paint(paint: Paint, text: string): string {
    if (!this.#isColoured) return text;
    const [on, off] = codes[paint];
    return `\x1b[${on}m${text}\x1b[${off}m`;
  }
}

/** Breaks a text at blanks into lines of at most `width` characters; a longer word stays whole. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  lines.push(line);
  return lines;
}

function formatMs(ms: number): string {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
