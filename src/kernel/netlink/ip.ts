/** 4 or 16 bytes of an address from text; undefined when the text is no address. Zones ("%eth0") are refused. */
export function ipToBytes(text: string): Uint8Array | undefined {
  return text.includes(":") ? v6ToBytes(text) : v4ToBytes(text);
}

/** The canonical text of 4 or 16 bytes; IPv6 as in RFC 5952. */
export function ipFromBytes(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  if (bytes.length !== 16) throw new RangeError(`An IP address has 4 or 16 bytes, not ${bytes.length}`);
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0));
  if (groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff)
    return `::ffff:${bytes.slice(12).join(".")}`;
  const gap = longestZeros(groups);
  const hex = (part: number[]) => part.map((group) => group.toString(16)).join(":");
  if (gap.length < 2) return hex(groups);
  return `${hex(groups.slice(0, gap.at))}::${hex(groups.slice(gap.at + gap.length))}`;
}

function longestZeros(groups: readonly number[]): { at: number; length: number } {
  let best = { at: 0, length: 0 };
  for (let at = 0; at < groups.length; at++) {
    let end = at;
    while (groups[end] === 0) end++;
    if (end - at > best.length) best = { at, length: end - at };
  }
  return best;
}

function v4ToBytes(text: string): Uint8Array | undefined {
  // No leading zeros: some parsers read them as octal, so two programs would see two addresses.
  if (!/^(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}$/.test(text)) return undefined;
  const bytes = text.split(".").map(Number);
  return bytes.every((byte) => byte <= 255) ? Uint8Array.from(bytes) : undefined;
}

function v6ToBytes(text: string): Uint8Array | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const [head, tail] = halves.map((half, i) => groupsOf(half, i === halves.length - 1));
  if (!head || (halves.length === 2 && !tail)) return undefined;
  const missing = 16 - head.length - (tail?.length ?? 0);
  // "::" means at least one group of zeros.
  if (tail ? missing < 2 : missing !== 0) return undefined;
  return Uint8Array.from([...head, ...new Array<number>(missing).fill(0), ...(tail ?? [])]);
}

function groupsOf(half: string, mayEndInV4: boolean): number[] | undefined {
  if (half === "") return [];
  const parts = half.split(":");
  const bytes: number[] = [];
  for (const [i, part] of parts.entries()) {
    if (/^[0-9a-fA-F]{1,4}$/.test(part)) {
      const group = Number.parseInt(part, 16);
      bytes.push(group >> 8, group & 0xff);
      continue;
    }
    const v4 = mayEndInV4 && i === parts.length - 1 ? v4ToBytes(part) : undefined;
    if (!v4) return undefined;
    bytes.push(...v4);
  }
  return bytes;
}
