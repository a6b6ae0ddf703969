import { type AttributeEncoder, NLA_F_NESTED, NLA_HDR_BYTES, NLA_TYPE_MASK } from "./attribute.ts";

/** An attribute as the kernel sends it or is sent it: what it means is the caller's. */
export interface RawAttribute {
  readonly type: number;
  readonly value: Buffer;
}

/** All attributes in their order. What is cut short ends the list: the caller compares it, and that will differ. */
export function rawAttributes(bytes: Buffer): RawAttribute[] {
  const found: RawAttribute[] = [];
  for (let at = 0; at + NLA_HDR_BYTES <= bytes.length; ) {
    const length = bytes.readUInt16LE(at);
    if (length < NLA_HDR_BYTES || at + length > bytes.length) break;
    const type = bytes.readUInt16LE(at + 2) & NLA_TYPE_MASK;
    found.push({ type, value: bytes.subarray(at + NLA_HDR_BYTES, at + length) });
    at += (length + 3) & ~3;
  }
  return found;
}

/** Those that hold attributes themselves are sent with NLA_F_NESTED. */
export interface WrittenAttribute extends RawAttribute {
  readonly isNested?: boolean;
}

export function addRaw(attributes: AttributeEncoder, list: readonly WrittenAttribute[]): void {
  for (const { type, value, isNested = false } of list) attributes.bytes(isNested ? type | NLA_F_NESTED : type, value);
}
