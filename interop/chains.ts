// Judges certificate chains as the forwarder does a peer's. Reads all of them from standard input, framed as
// interop/chains/judges.go writes them, and prints a verdict for each, a line of JSON.
import { readCertificates } from "../src/identity/certificate.ts";
import { IdentityError } from "../src/identity/error.ts";
import { verifyPeerChain } from "../src/identity/verify-peer-chain.ts";

/** Takes one field after the other. */
class Frames {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  milliseconds(): number {
    this.#at += 8;
    return Number(this.#bytes.readBigInt64BE(this.#at - 8));
  }

  count(): number {
    this.#at += 4;
    return this.#bytes.readUInt32BE(this.#at - 4);
  }

  bytes(): Buffer {
    const length = this.count();
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  list<T>(one: () => T): T[] {
    return Array.from({ length: this.count() }, one);
  }
}

function judge(frames: Frames): object {
  const nowMs = frames.milliseconds();
  const bundles = frames.list(() => [frames.bytes().toString(), frames.bytes()] as const);
  const chain = frames.list(() => frames.bytes());
  try {
    const readable = new Map(bundles.map(([domain, der]) => [domain, readCertificates(der)]));
    return { id: verifyPeerChain(chain, readable, nowMs).id };
  } catch (error) {
    if (error instanceof IdentityError) return { kind: error.fault.kind, problem: error.message };
    return { crash: String((error as Error).stack) };
  }
}

const chunks: Buffer[] = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const frames = new Frames(Buffer.concat(chunks));
const verdicts: string[] = [];
while (!frames.isAtEnd) verdicts.push(`${JSON.stringify(judge(frames))}\n`);
process.stdout.write(verdicts.join(""));
