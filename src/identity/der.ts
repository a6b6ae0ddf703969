import { IdentityError } from "./error.ts";

/** One element of DER (X.690). Only single-byte tags: X.509 has no others. */
export interface DerElement {
  readonly tag: number;
  readonly body: Buffer;
  /** Tag, length and body. */
  readonly whole: Buffer;
}

export const TAG_BOOLEAN = 0x01;
export const TAG_INTEGER = 0x02;
export const TAG_BIT_STRING = 0x03;
export const TAG_OCTET_STRING = 0x04;
export const TAG_OID = 0x06;
export const TAG_SEQUENCE = 0x30;

/**
 * The elements that stand one after the other in `bytes`; all bytes must belong to one.
 * @throws {IdentityError} kind "bad-certificate" on any length that does not fit
 */
export function readElements(bytes: Buffer): DerElement[] {
  const elements: DerElement[] = [];
  for (let at = 0; at < bytes.length; ) {
    const element = readElement(bytes, at);
    elements.push(element);
    at += element.whole.length;
  }
  return elements;
}

/** The elements inside an element of the given tag. */
export function readInside(element: DerElement | undefined, tag: number): DerElement[] {
  return readElements(bodyOf(element, tag));
}

/** The body of an element that must have the given tag. */
export function bodyOf(element: DerElement | undefined, tag: number): Buffer {
  if (element === undefined || element.tag !== tag) {
    throw broken(`want DER tag 0x${tag.toString(16)}, have ${element ? `0x${element.tag.toString(16)}` : "the end"}`);
  }
  return element.body;
}

/** The dotted form of an OBJECT IDENTIFIER. Parts beyond 2^31 do not occur in what we compare with. */
export function oidOf(element: DerElement | undefined): string {
  const parts: number[] = [];
  let part = 0;
  for (const byte of bodyOf(element, TAG_OID)) {
    part = part * 128 + (byte & 0x7f);
    if (byte & 0x80) continue;
    parts.push(part);
    part = 0;
  }
  const [first = 0, ...rest] = parts;
  const root = Math.min(2, Math.floor(first / 40));
  return [root, first - root * 40, ...rest].join(".");
}

function readElement(bytes: Buffer, at: number): DerElement {
  const tag = bytes[at];
  const firstLength = bytes[at + 1];
  if (tag === undefined || firstLength === undefined) throw broken("an element is cut short");
  if ((tag & 0x1f) === 0x1f) throw broken("a tag of more than one byte");
  const lengthBytes = firstLength < 0x80 ? 0 : firstLength & 0x7f;
  const start = at + 2 + lengthBytes;
  if (lengthBytes > 4 || firstLength === 0x80) throw broken("a length of unknown form");
  if (start > bytes.length) throw broken("an element is cut short");
  const length = lengthBytes === 0 ? firstLength : bytes.readUIntBE(at + 2, lengthBytes);
  if (start + length > bytes.length) throw broken("an element is longer than what holds it");
  return { tag, body: bytes.subarray(start, start + length), whole: bytes.subarray(at, start + length) };
}

function broken(problem: string): IdentityError {
  return new IdentityError({ kind: "bad-certificate", problem });
}
