/** Breaks a text into lines of at most so many characters; a longer word has a line of its own. */
export function wrap(text: string, columns: number): readonly string[] {
  const lines: string[] = [];
  for (const word of printable(text.replace(/\s+/g, " ")).split(" ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= columns) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** "1 VF", "3 VFs". */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** Text of peers without characters that a terminal would obey. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_C}]/gu, "?");
}

const units = [
  { name: "d", ms: 86_400_000 },
  { name: "h", ms: 3_600_000 },
  { name: "min", ms: 60_000 },
  { name: "s", ms: 1000 },
] as const;

/** A time that has passed or is left, in its two greatest units: "2 h 13 min", "47 min", "12 s". */
export function durationText(ms: number): string {
  const at = units.findIndex((unit) => ms >= unit.ms);
  if (at < 0) return "0 s";
  const [unit, next] = [units[at], units[at + 1]];
  const count = Math.floor(ms / (unit?.ms ?? 1));
  const rest = next && unit?.name !== "min" ? Math.floor((ms - count * (unit?.ms ?? 0)) / next.ms) : 0;
  return [`${count} ${unit?.name}`, ...(rest > 0 ? [`${rest} ${next?.name}`] : [])].join(" ");
}
