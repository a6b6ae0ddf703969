// The demo's status page is in a network namespace of its own, where no browser of this machine comes. Outside of it only a socket
// listens on loopback; the process inside accepts its connections, and carries their bytes to the page.
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

/** Where the page can be asked for, from the namespace that the door was opened in. */
export interface PageDoor {
  readonly url: string;
  close(): void;
}

/** Listens on loopback in the namespace of this process, on a port that was free. @throws where loopback is down. */
export async function openPageDoor(): Promise<Server> {
  const server = createServer((early) => early.destroy()); // came before the port was printed
  server.listen({ host: "127.0.0.1", port: 0 });
  await once(server, "listening").catch((cause: Error) => {
    throw new Error(`Cannot listen on 127.0.0.1 for the status page: ${cause.message}; is lo up (ip link set lo up)?`, {
      cause,
    });
  });
  return server;
}

/** Hands the socket that listens to a child with a channel; from then on only the child has it. */
export function handOver(door: Server, child: ChildProcess): void {
  child.send("door", door, () => {
    door.close(); // a child that is gone already has said why
    if (child.connected) child.disconnect();
  });
}

/** In the child: what was handed over. */
export async function receiveDoor(): Promise<Server> {
  const [, door] = (await once(process, "message")) as [unknown, Server];
  process.disconnect();
  return door;
}

/** Leads what comes in at the door to the page at the URL. */
export function leadToPage(server: Server, pageUrl: string): PageDoor {
  const { hostname, port } = new URL(pageUrl);
  const open = new Set<Socket>();
  server.on("connection", (browser) => {
    open.add(browser);
    join(browser, connect({ host: hostname, port: Number(port) }));
    browser.once("close", () => open.delete(browser));
  });
  const { port: outer } = server.address() as { readonly port: number };
  return {
    url: `http://127.0.0.1:${outer}`,
    close() {
      server.close();
      for (const browser of open) browser.destroy();
    },
  };
}

/** What one says the other hears; where one is gone, the other goes too. */
function join(one: Socket, other: Socket): void {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    from.pipe(to);
    from.on("error", () => {}); // its close is what counts
    from.once("close", () => to.destroy());
  }
}
