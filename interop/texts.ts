// Reads texts as the forwarder does: a list of kinds and texts from standard input, JSON, and for each what it is understood as.
import { durationFrom } from "../src/config-values.ts";
import { IdentityError } from "../src/identity/error.ts";
import { parseSpiffeId } from "../src/identity/spiffe-id.ts";
import { ipFromBytes, ipToBytes } from "../src/kernel/netlink/ip.ts";
import { NetdevError } from "../src/netdev/error.ts";
import { parseMac } from "../src/netdev/parse.ts";
import { parsePrefix, prefixText } from "../src/netdev/prefix.ts";

/** What a text is understood as; undefined, or an error of ours, where it is refused. */
const readers: Readonly<Record<string, (text: string) => string | undefined>> = {
  address(text) {
    const bytes = ipToBytes(text);
    return bytes && ipFromBytes(bytes);
  },
  prefix(text) {
    // An address alone is a prefix here, and none in Go.
    const prefix = text.includes("/") ? parsePrefix(text) : undefined;
    return prefix && prefixText(prefix);
  },
  mac: (text) => parseMac("neighbour", text),
  duration: (text) =>
    durationFrom("1ns")
      .parse(text)
      .toExponential(9)
      .replace(/e([+-])(\d)$/, "e$10$2"),
  "spiffe-id": (text) => parseSpiffeId(text),
};

function read({ kind, text }: { readonly kind: string; readonly text: string }): object {
  try {
    const value = readers[kind]?.(text);
    return value === undefined ? { is: false } : { is: true, value };
  } catch (error) {
    const isRefusal = error instanceof NetdevError || error instanceof IdentityError || error instanceof SyntaxError;
    return isRefusal ? { is: false } : { is: true, value: String((error as Error).stack) };
  }
}

const chunks: Buffer[] = [];
for await (const chunk of process.stdin) chunks.push(chunk);
process.stdout.write(JSON.stringify(JSON.parse(String(Buffer.concat(chunks))).map(read)));
