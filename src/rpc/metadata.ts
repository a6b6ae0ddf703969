import { RpcError } from "./status.ts";

/** Headers of a call or an answer, by lower-case key. Values of keys that end in `-bin` are base64, as they travel. */
export type Metadata = ReadonlyMap<string, readonly string[]>;

/** Headers to send, by lower-case key. */
export type MetadataInit = Readonly<Record<string, string | readonly string[]>>;

/** The same, checked: lower-case keys, values that can travel. */
export type Headers = Record<string, string[]>;

/** Keys that belong to HTTP/2 or to gRPC itself and never show up as metadata. `user-agent` does, as in Go. */
const reserved: ReadonlySet<string> = new Set([
  "content-type",
  "te",
  "date",
  "content-length",
  "connection",
  "host",
  "transfer-encoding",
]);

function isReserved(key: string): boolean {
  return key.startsWith(":") || key.startsWith("grpc-") || reserved.has(key);
}

/**
 * Reads the headers as they came: key, value, key, value. A key that came twice has two values; Node's own header
 * object would join them into one, and "exactly once" could not be known any more.
 */
export function readMetadata(...blocks: readonly (readonly string[])[]): Metadata {
  const metadata = new Map<string, string[]>();
  for (const block of blocks) {
    for (let at = 0; at + 1 < block.length; at += 2) {
      const key = block[at] ?? "";
      if (isReserved(key)) continue;
      const values = metadata.get(key);
      if (values) values.push(block[at + 1] ?? "");
      else metadata.set(key, [block[at + 1] ?? ""]);
    }
  }
  return metadata;
}

/**
 * Checks headers that are to be sent.
 * @throws {RpcError} INTERNAL when a key or value cannot travel in HTTP/2: found here, it fails one call and not the process.
 */
export function toHeaders(...parts: readonly MetadataInit[]): Headers {
  const headers = new Map<string, string[]>();
  for (const part of parts) {
    for (const [name, value] of Object.entries(part)) {
      const key = name.toLowerCase();
      const values = typeof value === "string" ? [value] : [...value];
      if (!/^[0-9a-z_.-]+$/.test(key) || isReserved(key)) {
        throw new RpcError(
          "INTERNAL",
          `Cannot send metadata key ${JSON.stringify(name)}: reserved or not a header name`,
        );
      }
      if (values.some((text) => !/^[\x20-\x7e]*$/.test(text))) {
        throw new RpcError(
          "INTERNAL",
          `Cannot send metadata ${key}: its value has characters other than printable ASCII`,
        );
      }
      headers.set(key, [...(headers.get(key) ?? []), ...values]);
    }
  }
  return Object.fromEntries(headers);
}
