import { printable } from "./text.ts";

/** A cell with how it is to be painted once it has its width. */
export interface Cell {
  readonly text: string;
  readonly paint?: (text: string) => string;
  /** Never cut, nor anything else in its column. */
  readonly isWhole?: boolean;
}

interface TableOptions {
  /** Cells are cut so that lines keep to it; undefined: nothing is cut. */
  readonly columns: number | undefined;
  readonly paintHead: (text: string) => string;
}

const GAP = "  ";
/** A column is not cut below this: what is left would say nothing. */
const LEAST_COLUMNS = 6;

/** Rows under a heading, aligned. A column in which no row says anything is left out. */
export function table(heads: readonly string[], rows: readonly (readonly Cell[])[], options: TableOptions): string[] {
  const used = heads.map((_, at) => rows.some((row) => (row[at]?.text ?? "") !== ""));
  const pick = <T>(cells: readonly T[]) => cells.filter((_, at) => used[at]);
  const clean = rows.map((row) => pick(row).map((cell) => ({ ...cell, text: printable(cell.text) })));
  const shown = pick(heads);
  const desired = shown.map((head, at) => Math.max(head.length, ...clean.map((row) => row[at]?.text.length ?? 0)));
  const canShrink = shown.map((_, at) => !clean.some((row) => row[at]?.isWhole));
  const widths = options.columns === undefined ? desired : narrowed(desired, canShrink, options.columns);
  const lines = clean.map((row) => line(row, widths));
  return [
    options.paintHead(
      line(
        shown.map((text) => ({ text })),
        widths,
      ),
    ),
    ...lines,
  ];
}

function line(cells: readonly Cell[], widths: readonly number[]): string {
  const padded = cells.map(({ text, paint = (same) => same }, at) => {
    const width = widths[at] ?? 0;
    const cut = text.length > width ? `${text.slice(0, width - 1)}…` : text;
    return paint(cut) + (at < cells.length - 1 ? " ".repeat(width - cut.length) : "");
  });
  return padded.join(GAP).trimEnd();
}

/** The widest columns give way first. */
function narrowed(desired: readonly number[], canShrink: readonly boolean[], columns: number): readonly number[] {
  const widths = [...desired];
  const total = () => widths.reduce((sum, width) => sum + width, GAP.length * (widths.length - 1));
  while (total() > columns) {
    const widest = Math.max(...widths.filter((_, at) => canShrink[at]));
    if (!(widest > LEAST_COLUMNS)) break;
    widths[widths.findIndex((width, at) => width === widest && canShrink[at])] = widest - 1;
  }
  return widths;
}
