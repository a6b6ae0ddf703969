import { Fd } from "../../src/kernel/index.ts";
import { RpcError, type Transport } from "../../src/rpc/index.ts";
import { MemoryTransport } from "../../src/rpc/testing/memory-transport.ts";
import type { Handles } from "./handles.ts";
import type { MemoryFolders } from "./memory-folders.ts";
import { keyOf } from "./netspace.ts";

/** A socket that a process listens on, or listened on. */
interface MemorySocket {
  /** Where the network beneath knows it. */
  readonly url: string;
  /** What peers are passed of it. */
  readonly handle: Fd;
}

const PASSED = /^unix:\/\/\/proc\/self\/fd\/(\d+)$/;

/**
 * The node's sockets: a network in memory, with the names that sockets have in folders and by passed descriptors. A socket whose owner has
 * died keeps its file, and no process answers there.
 */
export function simulatedNet(
  delays: ConstructorParameters<typeof MemoryTransport>[0],
  { handles, folders }: { readonly handles: Handles; readonly folders: MemoryFolders },
): Transport {
  const beneath = new MemoryTransport(delays);
  const byFile = new Map<string, MemorySocket>();
  const byHandle = new Map<string, MemorySocket>();
  let made = 0;

  const find = (target: string): string | undefined => {
    const [, number] = PASSED.exec(target) ?? [];
    if (number === undefined) return byFile.get(folders.identity(pathOf(target)) ?? "")?.url;
    const passed = Fd.dupOf({ number: Number(number) });
    try {
      return byHandle.get(keyOf(passed))?.url;
    } finally {
      passed.close();
    }
  };
  return {
    identify: (target) => find(target) ?? target,
    dial: (options) => beneath.dial({ ...options, target: find(options.target) ?? "unix:///nothing" }),
    async listen(options) {
      const path = pathOf(options.url);
      const before = find(options.url);
      if (before !== undefined && beneath.isListening(before)) {
        throw new RpcError("UNAVAILABLE", `Cannot listen on ${options.url}: another process listens there`);
      }
      const socket = { url: `unix:///memory/${made++}`, handle: handles.make() };
      const listener = await beneath.listen({ ...options, url: socket.url });
      const file = folders.put(path);
      byFile.set(file, socket);
      byHandle.set(keyOf(socket.handle), socket);
      return {
        url: options.url,
        openSocket: () => socket.handle.dup(),
        close() {
          listener.close();
          folders.remove(path, file);
        },
      };
    },
  };
}

function pathOf(url: string): string {
  return url.replace(/^unix:(\/\/)?/, "");
}
