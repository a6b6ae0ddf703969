// Counts what a message would become, on its bytes and without making anything: a list of empty elements takes 80 to 90 times
// its bytes when it is decoded. The decoder reads a known field by its schema whatever wire type it came with; what differs from the
// schema is refused here, so that both see the same elements. Format: protobuf.dev/programming-guides/encoding.
import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { RpcError } from "./status.ts";

/** Wire types; 3 and 4 are groups, which no message of ours has. */
const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;
type WireType = typeof VARINT | typeof FIXED64 | typeof BYTES | typeof FIXED32;

/** NSM nests six deep, OTLP's and SPIRE's answers less. */
const DEEPEST = 32;
const LONGEST_VARINT_BYTES = 10;

/** What is known of a field: how it comes, and what is in it. */
interface FieldShape {
  readonly wire: WireType;
  /** Numbers in a list may come one by one or packed. */
  readonly isPackable: boolean;
  readonly child: (() => MessageShape) | undefined;
}
type MessageShape = ReadonlyMap<number, FieldShape>;

const shapes = new WeakMap<DescMessage, MessageShape>();

/**
 * Checks a message before it is decoded. Answers how many elements it has.
 * @throws {RpcError} RESOURCE_EXHAUSTED when it has more elements than the limit or is nested too deep; INTERNAL when it is no
 * such message.
 */
export function checkElements(schema: DescMessage, bytes: Uint8Array, limit: number): number {
  const counter = new Counter(schema, bytes, limit);
  counter.message(shapeOf(schema), bytes.length, 0);
  return counter.count;
}

class Counter {
  readonly #schema: DescMessage;
  readonly #bytes: Uint8Array;
  readonly #limit: number;
  #at = 0;
  #count = 0;

  constructor(schema: DescMessage, bytes: Uint8Array, limit: number) {
    this.#schema = schema;
    this.#bytes = bytes;
    this.#limit = limit;
  }

  get count(): number {
    return this.#count;
  }

  message(shape: MessageShape, end: number, depth: number): void {
    if (depth > DEEPEST) throw this.#tooMuch(`is nested more than ${DEEPEST} deep`);
    while (this.#at < end) {
      this.#add(1);
      const tag = this.#uint32();
      const wire = tag & 7;
      const field = shape.get(tag >>> 3);
      if (tag >>> 3 === 0) throw this.#malformed("a field has the number 0");
      if (field !== undefined && wire !== field.wire && !(wire === BYTES && field.isPackable))
        throw this.#malformed(`field ${tag >>> 3} has wire type ${wire}, not ${field.wire}`);
      if (wire === BYTES) this.#delimited(field, end, depth);
      else this.#skip(wire);
      if (this.#at > end) throw this.#malformed("a field ends behind its message");
    }
  }

  #delimited(field: FieldShape | undefined, end: number, depth: number): void {
    const length = this.#uint32();
    const fieldEnd = this.#at + length;
    if (fieldEnd > end) throw this.#malformed("a field ends behind its message");
    if (field?.child) this.message(field.child(), fieldEnd, depth + 1);
    if (field?.isPackable) this.#packed(field.wire, fieldEnd);
    this.#at = fieldEnd;
  }

  #packed(wire: WireType, end: number): void {
    const start = this.#at;
    if (wire === VARINT) {
      let items = 0;
      for (let at = start; at < end; at++) if ((this.#bytes[at] ?? 0) < 0x80) items += 1;
      this.#add(items);
      if (end > start && (this.#bytes[end - 1] ?? 0) >= 0x80) throw this.#malformed("a packed list is cut");
      return;
    }
    const size = wire === FIXED64 ? 8 : 4;
    this.#add(Math.ceil((end - start) / size));
    if ((end - start) % size !== 0) throw this.#malformed("a packed list is cut");
  }

  #skip(wire: number): void {
    if (wire === VARINT) this.#varint();
    else if (wire === FIXED64) this.#at += 8;
    else if (wire === FIXED32) this.#at += 4;
    else throw this.#malformed(`wire type ${wire} is a group or none at all`);
  }

  #varint(): void {
    for (let read = 0; read < LONGEST_VARINT_BYTES; read++) {
      if ((this.#bytes[this.#at++] ?? 0xff) < 0x80) return;
    }
    throw this.#malformed("a number does not end");
  }

  /** A tag or a length, in the five bytes that 32 bits take at most. */
  #uint32(): number {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined || (shift === 28 && byte > 0x0f)) break;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw this.#malformed("a tag or a length does not end");
  }

  #add(count: number): void {
    this.#count += count;
    if (this.#count > this.#limit) throw this.#tooMuch(`has more than ${this.#limit} elements`);
  }

  #tooMuch(what: string): RpcError {
    const text = `Cannot take a ${this.#schema.typeName} of ${this.#bytes.length} bytes: it ${what}; send less at once`;
    return new RpcError("RESOURCE_EXHAUSTED", text);
  }

  #malformed(why: string): RpcError {
    return new RpcError("INTERNAL", `Cannot read a ${this.#schema.typeName}: ${why}`);
  }
}

function shapeOf(schema: DescMessage): MessageShape {
  const known = shapes.get(schema);
  if (known) return known;
  const shape = new Map(schema.fields.map((field) => [field.number, shapeOfField(field)]));
  shapes.set(schema, shape);
  return shape;
}

function shapeOfField(field: DescField): FieldShape {
  switch (field.fieldKind) {
    case "scalar":
      return single(wireOf(field.scalar));
    case "enum":
      return single(VARINT);
    case "message":
      return { ...single(BYTES), child: () => shapeOf(field.message) };
    case "list": {
      if (field.listKind === "message") return { ...single(BYTES), child: () => shapeOf(field.message) };
      const wire = field.listKind === "enum" ? VARINT : wireOf(field.scalar);
      return { wire, isPackable: wire !== BYTES, child: undefined };
    }
    case "map":
      return { ...single(BYTES), child: () => entryShape(field) };
  }
}

const entries = new WeakMap<DescField, MessageShape>();

function entryShape(field: DescField & { fieldKind: "map" }): MessageShape {
  const known = entries.get(field);
  if (known) return known;
  const shape: MessageShape = new Map([
    [1, single(wireOf(field.mapKey))],
    [2, valueShape(field)],
  ]);
  entries.set(field, shape);
  return shape;
}

function valueShape(field: DescField & { fieldKind: "map" }): FieldShape {
  if (field.mapKind === "message") return { ...single(BYTES), child: () => shapeOf(field.message) };
  return single(field.mapKind === "enum" ? VARINT : wireOf(field.scalar));
}

function single(wire: WireType): FieldShape {
  return { wire, isPackable: false, child: undefined };
}

function wireOf(type: ScalarType): WireType {
  switch (type) {
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return BYTES;
    case ScalarType.DOUBLE:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return FIXED64;
    case ScalarType.FLOAT:
    case ScalarType.FIXED32:
    case ScalarType.SFIXED32:
      return FIXED32;
    default:
      return VARINT;
  }
}
