// What comes before a message: frames, headers, the first record of TLS.
import { PassThrough } from "node:stream";
import { readTokenHeaders, tokenHeaders } from "../../../src/identity/token-headers.ts";
import { formatRegistryPath, parseRegistryPath } from "../../../src/nsm/registry/registry-path.ts";
import { encodeFrame, FrameReader } from "../../../src/rpc/frame.ts";
import { firstRecord } from "../../../src/rpc/http2/first-record.ts";
import { decodeStatusMessage, encodeStatusMessage } from "../../../src/rpc/http2/status-headers.ts";
import { formatTimeout, parseTimeout } from "../../../src/rpc/http2/timeout.ts";
import { readMetadata, toHeaders } from "../../../src/rpc/metadata.ts";
import { RpcError } from "../../../src/rpc/status.ts";
import { parseTarget } from "../../../src/rpc/target.ts";
import { hold, type Target, texts } from "../target.ts";

const FRAME_LIMIT = 1024;

/** The messages of the bytes, which come in pieces of that size. */
function framesOf(input: Buffer, pieceBytes: number): string {
  const reader = new FrameReader("a request", FRAME_LIMIT);
  const messages: string[] = [];
  try {
    for (let at = 0; at < input.length; at += pieceBytes) {
      for (const message of reader.push(input.subarray(at, at + pieceBytes))) {
        hold(message.length <= FRAME_LIMIT, () => "a message is longer than the limit");
        messages.push(Buffer.from(message).toString("latin1"));
      }
    }
  } catch (error) {
    if (!(error instanceof RpcError)) throw error;
    return JSON.stringify([messages, error.code]);
  }
  return JSON.stringify([messages, reader.isEmpty]);
}

const abort = new AbortController();
/** How long `grpc-message` may be: peers read header blocks of 8 KiB. */
const LONGEST_STATUS = 4_200;
const neverAborted = abort.signal;

export const wireTargets: readonly Target[] = [
  {
    name: "frames",
    says: "messages of gRPC, cut anywhere",
    seeds: [
      Buffer.concat([encodeFrame(Buffer.from("hello")), encodeFrame(Buffer.alloc(0)), encodeFrame(Buffer.alloc(300))]),
      Buffer.of(1, 0, 0, 0, 0),
      Buffer.of(0, 0xff, 0xff, 0xff, 0xff),
    ],
    refusals: [RpcError],
    run(input) {
      const whole = framesOf(input, Math.max(1, input.length));
      if (input.length <= 4096) {
        for (const size of [1, 7]) {
          hold(framesOf(input, size).endsWith(whole.slice(-6)), () => `ends otherwise in pieces of ${size} bytes`);
        }
      }
      return whole.slice(-30);
    },
  },
  {
    name: "first-record",
    says: "the first bytes of a connection",
    growsTo: 0,
    mostBytes: 512,
    seeds: [
      Buffer.of(22, 3, 1, 0, 4, 1, 0, 0, 0),
      Buffer.from("GET / HTTP/1.1\r\n\r\n"),
      Buffer.of(22, 3, 1, 0xff, 0xff),
    ],
    refusals: [],
    async run(input) {
      const stream = new PassThrough();
      const cut = Math.floor(input.length / 2);
      stream.write(input.subarray(0, cut));
      const record = firstRecord(stream, neverAborted);
      stream.write(input.subarray(cut));
      stream.end();
      await record;
      const left: Buffer[] = [];
      for await (const piece of stream) left.push(piece as Buffer);
      const rest = Buffer.concat(left);
      hold(rest.length === 0 || rest.equals(input), () => "what was read of the stream has changed");
      return `${rest.length === 0 ? "ended" : "left"} ${input[0] === 22}`;
    },
  },
  {
    name: "status-text",
    says: "a status' text of a peer, and of ours",
    seeds: texts(
      "plain",
      "50%25 of %C3%A9",
      "caf\u00e9 \u2603 %",
      "a\ud83d\ude00",
      "\u00e9".repeat(1500),
      "x".repeat(4000),
    ),
    mostBytes: 16_384,
    words: ["%", "%25", "\u{1f600}", "\u00e9", "\n"],
    refusals: [],
    run(input) {
      const text = input.toString("utf8");
      const encoded = encodeStatusMessage(text);
      hold(/^[ -~]*$/.test(encoded), () => "a header with other than printable ASCII");
      hold(encoded.length <= LONGEST_STATUS, () => `a header of ${encoded.length} characters`);
      const decoded = decodeStatusMessage(encoded);
      hold(text.startsWith(decoded.replace(/\u2026$/, "")) || decoded === text, () => "reads back as another text");
      decodeStatusMessage(text);
      return decoded === text ? "whole" : "cut";
    },
  },
  {
    name: "headers",
    says: "headers of a call: metadata, token, deadline",
    seeds: texts(
      `nsm-client-token\n${"eyJ.a.b"}\nnsm-client-token-expires\n2026-01-01T00:00:00.5Z\nuser-agent\ngrpc-go`,
      ":path\n/a/b\ngrpc-timeout\n250m\nkey-bin\naGk=\n__proto__\nx\nkey-bin\naGk",
      "nsm-client-token-expires\n2026-02-30T00:00:00+01:00\nte\ntrailers",
    ),
    words: [
      "nsm-client-token",
      "nsm-client-token-expires",
      "\n",
      "__proto__",
      "99999999H",
      "2026-12-31T23:59:59.999999999-23:59",
    ],
    refusals: [RpcError],
    run(input) {
      const lines = input.toString("latin1").split("\n");
      const metadata = readMetadata(lines);
      const issued = readTokenHeaders(metadata);
      if (issued) {
        hold(Number.isFinite(issued.expiresMs), () => "a token without an end");
        if (Math.abs(issued.expiresMs) < 8.64e15 && issued.expiresMs > 0) tokenHeaders(issued);
      }
      for (const line of lines) {
        const ms = parseTimeout(line);
        if (ms !== undefined)
          hold(parseTimeout(formatTimeout(ms)) !== undefined, () => "a deadline that we could not send on");
      }
      toHeaders(Object.fromEntries([...metadata].map(([key, values]) => [key, [...values]])));
      return `${metadata.size > 3} ${issued !== undefined}`;
    },
  },
  {
    name: "registry-path",
    says: "the registry's path in a header",
    seeds: texts('{"Index":1,"PathSegments":[{"token":"a"},{"token":"b"}]}', '{"Index":0,"PathSegments":null}', "[]"),
    words: ["null", "-1", "1e3", '"__proto__"', "[", "{"],
    refusals: [],
    run(input) {
      const path = parseRegistryPath([input.toString("utf8")]);
      if (!path) return "unusable";
      hold(path.index < Math.max(1, path.tokens.length) && path.tokens.length <= 16, () => "leads beside the path");
      const again = parseRegistryPath([formatRegistryPath(path)]);
      hold(JSON.stringify(again) === JSON.stringify(path), () => "is another path when it is written and read");
      return `${path.tokens.length}`;
    },
  },
  {
    name: "target",
    says: "the address of an endpoint or a socket",
    seeds: texts("unix:///run/nsm.sock", "tcp://[fe80::1%eth0]:5001", "tcp://host:65535", "unix:/a"),
    words: ["unix://", "tcp://", "\0", "/../", ":99999"],
    refusals: [RpcError],
    run(input) {
      const target = parseTarget(input.toString("utf8"));
      if (target.kind === "unix")
        hold(Buffer.byteLength(target.path) < 108, () => "longer than a socket's path may be");
      else hold(target.port <= 65_535, () => "no port");
      return target.kind;
    },
  },
];
