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
const TAG_OID = 0x06;
export const TAG_SEQUENCE = 0x30;

/**
 * The elements that follow each other in `bytes`; all bytes must belong to one.
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

/**
 * The one element that `bytes` are.
 * @throws {IdentityError} kind "bad-certificate" when there are none or several
 */
export function readOnly(bytes: Buffer): DerElement {
  const [element, ...more] = readElements(bytes);
  if (element === undefined || more.length > 0)
    throw refuse("one element of DER is wanted where there are none or several");
  return element;
}

/** A BOOLEAN, which DER writes as 0 or 255 only. */
export function booleanOf(element: DerElement): boolean {
  const body = bodyOf(element, TAG_BOOLEAN);
  if (body.length !== 1 || (body[0] !== 0 && body[0] !== 0xff)) throw refuse("a boolean is neither 0 nor 255");
  return body[0] !== 0;
}

/** An INTEGER from 0 to 2^31 - 1. */
export function countOf(element: DerElement): number {
  const body = bodyOf(element, TAG_INTEGER);
  const isMinimal = body.length > 0 && !(body.length > 1 && body[0] === 0 && (body[1] ?? 0) < 0x80);
  if (!isMinimal || body.length > 4 || (body[0] ?? 0) >= 0x80)
    throw refuse("a count is negative, huge or oddly written");
  return body.readUIntBE(0, body.length);
}

/** The elements inside an element of the given tag. */
export function readInside(element: DerElement | undefined, tag: number): DerElement[] {
  return readElements(bodyOf(element, tag));
}

/** The body of an element that must have the given tag. */
export function bodyOf(element: DerElement | undefined, tag: number): Buffer {
  if (element === undefined || element.tag !== tag) {
    throw refuse(`want DER tag 0x${tag.toString(16)}, have ${element ? `0x${element.tag.toString(16)}` : "the end"}`);
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
  if (tag === undefined || firstLength === undefined) throw refuse("an element is cut short");
  if ((tag & 0x1f) === 0x1f) throw refuse("a tag of more than one byte");
  const lengthBytes = firstLength < 0x80 ? 0 : firstLength & 0x7f;
  const start = at + 2 + lengthBytes;
  if (lengthBytes > 4 || firstLength === 0x80) throw refuse("a length of unknown form");
  if (start > bytes.length) throw refuse("an element is cut short");
  const length = lengthBytes === 0 ? firstLength : bytes.readUIntBE(at + 2, lengthBytes);
  if (start + length > bytes.length) throw refuse("an element is longer than what holds it");
  return { tag, body: bytes.subarray(start, start + length), whole: bytes.subarray(at, start + length) };
}

/** What is wrong with the bytes of a certificate. */
export function refuse(problem: string): IdentityError {
  return new IdentityError({ kind: "bad-certificate", problem });
}
