/** Which of the two protocols: ICMP (RFC 792) or ICMPv6 (RFC 4443). */
export type IpVersion = 4 | 6;

/** What ties an answer to its question. */
export interface Echo {
  /** Identifier of this pinger, 16 bits. */
  readonly id: number;
  /** Number of this question, 16 bits. */
  readonly sequence: number;
}

const request = { 4: 8, 6: 128 } as const;
const reply = { 4: 0, 6: 129 } as const;
const HEADER_BYTES = 8;
const PAYLOAD = Buffer.from("network service mesh");

/** An echo request. For version 6 the checksum stays 0: the kernel fills it in (RFC 3542 §3.1), as it covers addresses. */
export function encodeEchoRequest(version: IpVersion, echo: Echo): Buffer {
  const packet = Buffer.concat([Buffer.alloc(HEADER_BYTES), PAYLOAD]);
  packet.writeUInt8(request[version], 0);
  packet.writeUInt16BE(echo.id, 4);
  packet.writeUInt16BE(echo.sequence, 6);
  if (version === 4) packet.writeUInt16BE(internetChecksum(packet), 2);
  return packet;
}

/**
 * Reads an echo reply out of what a raw socket received; undefined for anything else. A raw IPv4 socket delivers the IP
 * header too (raw(7)), a raw IPv6 socket does not.
 */
export function decodeEchoReply(version: IpVersion, packet: Buffer): Echo | undefined {
  const start = version === 4 ? ((packet[0] ?? 0) & 0x0f) * 4 : 0;
  if (packet.length < start + HEADER_BYTES || packet[start] !== reply[version]) return undefined;
  return { id: packet.readUInt16BE(start + 4), sequence: packet.readUInt16BE(start + 6) };
}

/** RFC 1071: the one's complement of the one's complement sum of all 16-bit words. */
export function internetChecksum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
