import { styleText } from "node:util";
import type { Terminal } from "./command.ts";

/** Colours for who can see them. What a colour says is always said in words too. */
export interface Painter {
  bold(text: string): string;
  dim(text: string): string;
  good(text: string): string;
  doubtful(text: string): string;
  bad(text: string): string;
}

/** The painter of a terminal; one without colours leaves text as it is. */
export function painter({ hasColors }: Pick<Terminal, "hasColors">): Painter {
  const as = (format: Parameters<typeof styleText>[0]) => (text: string) =>
    hasColors && text !== "" ? styleText(format, text, { validateStream: false }) : text;
  return { bold: as("bold"), dim: as("dim"), good: as("green"), doubtful: as("yellow"), bad: as(["bold", "red"]) };
}
