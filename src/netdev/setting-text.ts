import { createHash } from "node:crypto";

/** IFLA_IFALIAS, PHYS_PORT_NAME, PARENT_DEV_NAME, PARENT_DEV_BUS_NAME. */
const TEXTS: readonly number[] = [20, 38, 56, 57];
/** What is longer is never written back, and compared by its digest: a table of RSS, or its key, which is a secret. */
const LONGEST_BYTES = 36;
const LENGTH_OF = { u8: 1, u16: 2, u32: 4 } as const;

/** Whether an attribute of a link is a text. */
export function isText(type: number): boolean {
  return TEXTS.includes(type);
}

/** The value of an attribute for a journal and an operator: "u32 1000", "text uplink of rack 4", or its bytes. */
export function settingText(value: Buffer, isMeantAsText = false): string {
  if (isMeantAsText) return asText(value);
  if (value.length === 1) return `u8 ${value.readUInt8()}`;
  if (value.length === 2) return `u16 ${value.readUInt16LE()}`;
  if (value.length === 4) return `u32 ${value.readUInt32LE()}`;
  if (value.length <= LONGEST_BYTES) return `bytes ${value.toString("hex")}`;
  return `sha256 ${createHash("sha256").update(value).digest("hex").slice(0, 32)} of ${value.length} bytes`;
}

function asText(value: Buffer): string {
  const end = value.indexOf(0);
  const text = value.subarray(0, end < 0 ? value.length : end);
  const decoded = text.toString("utf8");
  return Buffer.from(decoded).equals(text) ? `text ${decoded}` : settingText(text);
}

/** The value that a text was made of; undefined where it cannot be had back. */
export function settingValue(text: string): Buffer | undefined {
  const [kind = "", rest = ""] = text.split(/ (.*)/s);
  if (kind === "text") return Buffer.from(rest);
  if (kind === "bytes") return Buffer.from(rest, "hex");
  if (kind !== "u8" && kind !== "u16" && kind !== "u32") return undefined;
  const value = Buffer.alloc(LENGTH_OF[kind]);
  value.writeUIntLE(Number(rest), 0, value.length);
  return value;
}
