/** The words of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What a peer has sent, for an error or a log line: bounded, without control characters. */
export function printable(text: string): string {
  const clean = text.replace(/[\p{Cc}\p{Zl}\p{Zp}]/gu, "?");
  return clean.length > 80 ? `${clean.slice(0, 80)}…` : clean;
}
