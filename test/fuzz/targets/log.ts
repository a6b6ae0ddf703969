import { prettyLine } from "../../../src/telemetry/pretty.ts";
import { redact } from "../../../src/telemetry/redact.ts";
import { hold, type Target, texts } from "../target.ts";
import { token } from "./identity-seeds.ts";

const line = {
  level: "info",
  time: "2026-01-01T00:00:00.000Z",
  event: "driver-bound",
  vf: "0000:3b:02.1",
  deep: [1, "a b"],
};
/** Colours that are ours. */
const OURS = new RegExp(`${String.fromCharCode(0x1b)}\\[\\d+m`, "g");
/** Header and claims, where no other word is glued to them. */
const SHOWN = new RegExp(`(?<![\\w-])${token.slice(0, token.indexOf(".", 40)).replace(".", "\\.")}`);
/** What steers a terminal, breaks a line, or turns the direction of a text. */
const STEERS = /[\p{Cc}\u2028\u2029\p{Bidi_Control}]/u;

export const logTargets: readonly Target[] = [
  {
    name: "log-line",
    says: "a line of the log, with texts of peers, for a terminal",
    seeds: texts(JSON.stringify(line), JSON.stringify({ ...line, message: "said \u001b[31m", "a\nb": "\u202e" })),
    words: ["\\u001b[2J", "\u202e", "\u2028", "\u009b", "\\n", '"event":"', "\u2066", "\u{e0001}"],
    refusals: [SyntaxError],
    run(input) {
      const record: unknown = JSON.parse(input.toString("utf8"));
      if (typeof record !== "object" || record === null || Array.isArray(record)) return "no record";
      const shown = prettyLine(JSON.stringify({ ...line, ...record, level: line.level, time: line.time }));
      hold(shown.endsWith("\n"), () => "has no end");
      const text = shown.slice(0, -1).replace(OURS, "");
      hold(!STEERS.test(text), () => `steers the terminal: ${JSON.stringify(text)}`);
      return `${Object.keys(record).length}`;
    },
  },
  {
    name: "log-redaction",
    says: "fields of the log that may hold a token",
    seeds: texts(
      JSON.stringify({ ...line, why: `bad ${token} here`, list: [token], token: "x" }),
      `{"pem":"-----BEGIN KEY-----\\nAA\\n-----END KEY-----"}`,
    ),
    words: [token, "-----BEGIN ", "-----END ", "-----", "eyJ", ".", '"', "{", "["],
    mostBytes: 16_384,
    refusals: [SyntaxError],
    run(input) {
      const text = JSON.stringify(redact(JSON.parse(input.toString("utf8"))) ?? null);
      hold(!SHOWN.test(text), () => "shows a token");
      return text.includes("<jwt>") ? "hidden" : "plain";
    },
  },
];
