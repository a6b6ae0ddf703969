// Formats of parts with a tag and a length each, so that a change inside one leaves all lengths around it right.

/** One element of a message, an ASN.1 structure, a list of attributes. */
export interface Part {
  readonly tag: number;
  readonly body: Buffer;
}

/** How bytes are made of parts. */
export interface Form {
  /** Undefined where the bytes are no such parts. */
  split(bytes: Buffer): readonly Part[] | undefined;
  join(parts: readonly Part[]): Buffer;
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let left = value;
  for (; left > 0x7f; left = Math.floor(left / 128)) bytes.push((left % 128) | 0x80);
  return Buffer.from([...bytes, left]);
}

function readVarint(bytes: Buffer, at: number): { readonly value: number; readonly end: number } | undefined {
  let value = 0;
  for (let i = 0; i < 10; i++) {
    const byte = bytes[at + i];
    if (byte === undefined) return undefined;
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return { value, end: at + i + 1 };
  }
  return undefined;
}

/** protobuf.dev/programming-guides/encoding: the tag is field number and wire type. */
export const protobuf: Form = {
  split(bytes) {
    const parts: Part[] = [];
    for (let at = 0; at < bytes.length; ) {
      const tag = readVarint(bytes, at);
      if (!tag) return undefined;
      const place = valuePlace(bytes, tag.end, tag.value % 8);
      if (!place || place.end > bytes.length) return undefined;
      parts.push({ tag: tag.value, body: bytes.subarray(place.start, place.end) });
      at = place.end;
    }
    return parts;
  },
  join: (parts) =>
    Buffer.concat(
      parts.flatMap(({ tag, body }) => [varint(tag), ...(tag % 8 === 2 ? [varint(body.length)] : []), body]),
    ),
};

function valuePlace(bytes: Buffer, at: number, wire: number): { start: number; end: number } | undefined {
  if (wire === 1) return { start: at, end: at + 8 };
  if (wire === 5) return { start: at, end: at + 4 };
  const number = readVarint(bytes, at);
  if (!number || (wire !== 0 && wire !== 2)) return undefined;
  return wire === 0 ? { start: at, end: number.end } : { start: number.end, end: number.end + number.value };
}

/** X.690: one byte of tag, a length of one to five bytes. */
export const der: Form = {
  split(bytes) {
    const parts: Part[] = [];
    for (let at = 0; at < bytes.length; ) {
      const [tag, first] = [bytes[at], bytes[at + 1]];
      if (tag === undefined || first === undefined) return undefined;
      const more = first < 0x80 ? 0 : first & 0x7f;
      const start = at + 2 + more;
      if (more > 4 || start > bytes.length) return undefined;
      const end = start + (more === 0 ? first : bytes.readUIntBE(at + 2, more));
      if (end > bytes.length) return undefined;
      parts.push({ tag, body: bytes.subarray(start, end) });
      at = end;
    }
    return parts;
  },
  join: (parts) =>
    Buffer.concat(parts.flatMap(({ tag, body }) => [Buffer.of(tag & 0xff), derLength(body.length), body])),
};

function derLength(length: number): Buffer {
  if (length < 0x80) return Buffer.of(length);
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(length);
  const short = bytes.subarray(bytes.findIndex((byte) => byte !== 0));
  return Buffer.concat([Buffer.of(0x80 | short.length), short]);
}

/** Attributes of netlink behind a header of so many bytes, which is the first part: struct nlattr, include/uapi/linux/netlink.h. */
export function attributesBehind(headerBytes: number): Form {
  return {
    split(bytes) {
      if (bytes.length < headerBytes) return undefined;
      const parts: Part[] = headerBytes === 0 ? [] : [{ tag: -1, body: bytes.subarray(0, headerBytes) }];
      for (let at = headerBytes; at + 4 <= bytes.length; ) {
        const length = bytes.readUInt16LE(at);
        if (length < 4 || at + length > bytes.length) return undefined;
        parts.push({ tag: bytes.readUInt16LE(at + 2), body: bytes.subarray(at + 4, at + length) });
        at += (length + 3) & ~3;
      }
      return parts;
    },
    join: (parts) => Buffer.concat(parts.map(attribute)),
  };
}

function attribute({ tag, body }: Part): Buffer {
  if (tag < 0) return body;
  const bytes = Buffer.alloc((4 + body.length + 3) & ~3);
  bytes.writeUInt16LE((4 + body.length) & 0xffff, 0);
  bytes.writeUInt16LE(tag & 0xffff, 2);
  bytes.set(body, 4);
  return bytes;
}
