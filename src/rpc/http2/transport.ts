import { rareWarnings } from "../../telemetry/index.ts";
import type { Transport } from "../transport.ts";
import { Acceptor } from "./accept.ts";
import { dial } from "./dial.ts";
import { listenOnSocket, socketIdentity } from "./listen.ts";

/** HTTP/2 over unix sockets and TCP, with mutual TLS where there is an identity. */
export const http2Transport: Transport = {
  dial,
  identify: socketIdentity,
  async listen({ url, socketMode, ...options }) {
    const acceptor = new Acceptor(options);
    const warn = rareWarnings(options.log, options.clock);
    const listener = await listenOnSocket({
      url,
      socketMode,
      onStream: (raw) => void acceptor.accept(raw),
      onError: (error) => warn("rpc-accept-failed", { url, error: error.message }),
    });
    return {
      url: listener.url,
      openSocket: () => listener.openSocket(),
      close() {
        listener.close();
        acceptor.close();
      },
    };
  },
};
