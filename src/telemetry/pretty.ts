const COLOURS: Readonly<Record<string, string>> = { error: "31", warn: "33", info: "32", debug: "36", trace: "90" };

/** A JSON line of the log as one line for the operator: time of day, level, event, its message, `name=value` fields. */
export function prettyLine(line: string): string {
  const { level, time, event, message, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const mark = `\u001b[${COLOURS[String(level)] ?? "0"}m${String(level).toUpperCase().padEnd(5)}\u001b[0m`;
  const shown = fieldsText(fields, (name) => `\u001b[90m${name}=\u001b[0m`);
  const parts = [escapeControls(String(event)), message && escapeControls(String(message)), shown].filter(Boolean);
  return `${String(time).slice(11, 23)} ${mark} ${parts.join(" ")}\n`;
}

/** Fields as `name=value`, in one line that steers no terminal. */
export function fieldsText(
  fields: Readonly<Record<string, unknown>>,
  paint: (name: string) => string = (name) => `${name}=`,
): string {
  return Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${paint(escapeControls(name))}${showValue(value)}`)
    .join(" ");
}

function showValue(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return /^[\w.:/@+-]+$/.test(text) ? text : escapeControls(typeof value === "string" ? JSON.stringify(value) : text);
}

/** A peer's text must not steer the terminal of a reader of the log, end its line, or turn the direction of what follows. */
function escapeControls(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, (sign) => {
    const digits = sign.charCodeAt(0).toString(16);
    return digits.length > 2 ? `\\u${digits.padStart(4, "0")}` : `\\x${digits.padStart(2, "0")}`;
  });
}
