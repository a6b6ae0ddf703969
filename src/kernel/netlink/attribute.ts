// struct nlattr, include/uapi/linux/netlink.h (Linux 6.1): u16 length (with these 4 bytes), u16 type, then the value.
export const NLA_HDR_BYTES = 4;
// #define NLA_F_NESTED (1 << 15)
export const NLA_F_NESTED = 0x8000;
// #define NLA_TYPE_MASK ~(NLA_F_NESTED | NLA_F_NET_BYTEORDER)
export const NLA_TYPE_MASK = 0x3fff;

// #define NLA_ALIGN(len) (((len) + NLA_ALIGNTO - 1) & ~(NLA_ALIGNTO - 1))
function align(length: number): number {
  return (length + 3) & ~3;
}

/** Collects attributes one after the other. */
export class AttributeEncoder {
  readonly #parts: Buffer[] = [];

  bytes(type: number, value: Uint8Array): this {
    const padded = Buffer.alloc(align(NLA_HDR_BYTES + value.length));
    padded.writeUInt16LE(NLA_HDR_BYTES + value.length, 0);
    padded.writeUInt16LE(type, 2);
    padded.set(value, NLA_HDR_BYTES);
    this.#parts.push(padded);
    return this;
  }

  u8(type: number, value: number): this {
    return this.bytes(type, Uint8Array.of(value));
  }

  u32(type: number, value: number): this {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return this.bytes(type, bytes);
  }

  /** Text with its final NUL, as the kernel wants names of links. */
  string(type: number, value: string): this {
    return this.bytes(type, Buffer.from(`${value}\0`));
  }

  /** Attributes inside an attribute, with NLA_F_NESTED: what strict checking requires. */
  nested(type: number, fill: (inner: AttributeEncoder) => void): this {
    return this.bytes(type | NLA_F_NESTED, encodeAttributes(fill));
  }

  /** Attributes inside an attribute without the flag: the older families (IFLA_VFINFO_LIST, IFLA_LINKINFO) are sent so. */
  plainNested(type: number, fill: (inner: AttributeEncoder) => void): this {
    return this.bytes(type, encodeAttributes(fill));
  }

  finish(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

/** The bytes of the attributes that `fill` adds. */
export function encodeAttributes(fill: (attributes: AttributeEncoder) => void): Buffer {
  const encoder = new AttributeEncoder();
  fill(encoder);
  return encoder.finish();
}

/**
 * Reads attributes. Its getters never throw: a value of the wrong length reads as undefined and is remembered, here and
 * in everything nested, so that many fields can be read in a row and `problem` once.
 */
export class AttributeDecoder {
  readonly #values = new Map<number, Buffer[]>();
  readonly #shared: { problem: string | undefined };

  constructor(bytes: Buffer, shared: { problem: string | undefined } = { problem: undefined }) {
    this.#shared = shared;
    let at = 0;
    while (at < bytes.length) {
      // Fewer than four bytes at the end are padding (nla_ok refuses them as an attribute too).
      if (bytes.length - at < NLA_HDR_BYTES) break;
      const length = bytes.readUInt16LE(at);
      if (length < NLA_HDR_BYTES || at + length > bytes.length) {
        this.#fail(`an attribute at byte ${at} says it is ${length} bytes long, ${bytes.length - at} are left`);
        break;
      }
      const type = bytes.readUInt16LE(at + 2) & NLA_TYPE_MASK;
      const value = bytes.subarray(at + NLA_HDR_BYTES, at + length);
      const before = this.#values.get(type);
      if (before) before.push(value);
      else this.#values.set(type, [value]);
      at += align(length);
    }
  }

  /** The first thing that was wrong; undefined when all is well. */
  get problem(): string | undefined {
    return this.#shared.problem;
  }

  has(type: number): boolean {
    return this.#values.has(type);
  }

  /** The value as it is; the last one when the attribute comes more than once. */
  bytes(type: number): Buffer | undefined {
    return this.#values.get(type)?.at(-1);
  }

  u8(type: number): number | undefined {
    return this.#sized(type, 1)?.readUInt8();
  }

  u16(type: number): number | undefined {
    return this.#sized(type, 2)?.readUInt16LE();
  }

  u32(type: number): number | undefined {
    return this.#sized(type, 4)?.readUInt32LE();
  }

  /** Text without its final NUL. */
  string(type: number): string | undefined {
    const value = this.bytes(type);
    if (!value) return undefined;
    const end = value.indexOf(0);
    return value.toString("utf8", 0, end < 0 ? value.length : end);
  }

  /** Every text of an attribute that comes many times. */
  strings(type: number): string[] {
    return (this.#values.get(type) ?? []).map((value) => value.toString("utf8").replace(/\0.*$/s, ""));
  }

  nested(type: number): AttributeDecoder | undefined {
    const value = this.bytes(type);
    return value && new AttributeDecoder(value, this.#shared);
  }

  /** Each occurrence of a nested attribute that comes many times. */
  eachNested(type: number): AttributeDecoder[] {
    return (this.#values.get(type) ?? []).map((value) => new AttributeDecoder(value, this.#shared));
  }

  #sized(type: number, length: number): Buffer | undefined {
    const value = this.bytes(type);
    if (!value || value.length === length) return value;
    this.#fail(`attribute ${type} is ${value.length} bytes long, not ${length}`);
    return undefined;
  }

  #fail(problem: string): void {
    this.#shared.problem ??= problem;
  }
}
