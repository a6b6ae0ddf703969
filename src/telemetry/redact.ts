const JWT = /\beyJ[\w-]{4,}\.[\w-]{4,}(\.[\w-]*)?/g;
const PEM = /-----BEGIN [^-]*-----[\s\S]*?(-----END [^-]*-----|$)/g;
const SECRET_NAME = /^(.*(token|secret|password|jwt|private_?key)|(signing_?)?key(_?(pem|der))?|authorization)$/i;
const LONGEST_TEXT = 4096;
const DEEPEST = 6;
const LONGEST_LIST = 100;

/** The text without anything in the form of a JWT or a PEM block, cut at 4096 characters. */
function redactText(text: string): string {
  const short = text.length > LONGEST_TEXT ? `${text.slice(0, LONGEST_TEXT)}… (${text.length} characters)` : text;
  return short.replace(PEM, "<pem>").replace(JWT, "<jwt>");
}

/**
 * Any value as plain data that JSON can hold: bigint as text, bytes as their count, errors with code and causes, maps as
 * objects; cycles and depths are cut. Fields named like a secret (token, privateKey, password, …) are hidden whatever they hold.
 */
export function redact(value: unknown, depth = 0): unknown {
  switch (typeof value) {
    case "string":
      return redactText(value);
    case "bigint":
    case "symbol":
      return String(value);
    case "function":
      return "<function>";
    case "object":
      return value === null ? null : depth >= DEEPEST ? "<deep>" : redactObject(value, depth);
    default:
      return value;
  }
}

function redactObject(value: object, depth: number): unknown {
  if (value instanceof Error) return redactError(value, depth);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "<no date>" : value.toISOString();
  if (ArrayBuffer.isView(value)) return `<${value.byteLength} bytes>`;
  if (Array.isArray(value) || value instanceof Set) return redactList([...value], depth);
  const entries = value instanceof Map ? [...value].map(([name, of]) => [String(name), of]) : Object.entries(value);
  return Object.fromEntries(entries.map(([name, of]) => [redactText(name), redactField(name, of, depth + 1)]));
}

function redactField(name: string, value: unknown, depth: number): unknown {
  const isHidden = SECRET_NAME.test(name) && value !== undefined && value !== null && typeof value !== "boolean";
  return isHidden ? "<hidden>" : redact(value, depth);
}

function redactList(list: readonly unknown[], depth: number): unknown {
  const shown = list.slice(0, LONGEST_LIST).map((of) => redact(of, depth + 1));
  return list.length > LONGEST_LIST ? [...shown, `… ${list.length - LONGEST_LIST} more`] : shown;
}

/** The stack only at the top of a chain of causes: below it says the same again. */
function redactError(error: Error, depth: number): unknown {
  const { name, message, stack, cause, ...rest } = error as Error & Record<string, unknown>;
  return {
    name,
    message: redactText(String(message)),
    ...(redactObject(rest, depth) as object),
    ...(cause === undefined ? {} : { cause: redact(cause, depth + 1) }),
    ...(depth > 1 || !stack ? {} : { stack: redactText(String(stack)) }),
  };
}
