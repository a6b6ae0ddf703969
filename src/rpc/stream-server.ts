import type { Duplex } from "node:stream";
import { Acceptor } from "./http2/accept.ts";
import { Server, type ServerOptions } from "./server.ts";

/** A server for streams that another module accepts. */
interface StreamServer {
  /** Takes a stream over; it ends with its connection. Never throws. */
  accept(stream: Duplex, remote: string): void;
  stop(graceMs: number): Promise<void>;
}

/** Serves gRPC over HTTP/2 on streams that are handed in. */
export function serveStreams(options: ServerOptions): StreamServer {
  const server = new Server(options);
  const acceptor = new Acceptor(server.acceptOptions);
  return {
    accept(stream, remote) {
      // tcp://address:port
      const source = remote.replace(/:\d+$/, "");
      void acceptor.accept({ stream, fds: undefined, remote, source });
    },
    async stop(graceMs) {
      acceptor.close();
      await server.stop(graceMs);
    },
  };
}
