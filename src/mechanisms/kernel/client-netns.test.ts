import assert from "node:assert/strict";
import { test } from "node:test";
import { type Netns, NotANetnsError } from "../../kernel/index.ts";
import type { OwnedFd } from "../../nsm/index.ts";
import { clientNetns } from "./client-netns.ts";

const fd = {} as OwnedFd;
const host = {} as Netns;

/** A namespace that a client has passed, the host's own or another one. */
function passed(isHosts: boolean) {
  const handle = { isSame: (other: Netns) => isHosts && other === host, closed: 0, close: () => void handle.closed++ };
  const links = { netns: host, netnsOf: () => handle as unknown as Netns };
  return { handle, links };
}

test("clientNetns() gives a handle of the client's namespace, which stays open", () => {
  const { handle, links } = passed(false);
  assert.equal(clientNetns(fd, links), handle);
  assert.equal(handle.closed, 0);
});

test("clientNetns() refuses the host's own namespace, and keeps no handle of it", () => {
  const { handle, links } = passed(true);
  assert.throws(() => clientNetns(fd, links), { name: "NetdevError", fault: { kind: "host-namespace" } });
  assert.equal(handle.closed, 1);
});

test("clientNetns() says of another descriptor what it is, and passes other errors on", () => {
  const failing = (error: Error) => ({
    netns: host,
    netnsOf: () => {
      throw error;
    },
  });
  const notOne = new NotANetnsError("a file of another kind");
  assert.throws(() => clientNetns(fd, failing(notOne)), {
    fault: { kind: "not-a-namespace", problem: notOne.message },
    cause: notOne,
  });
  const other = new Error("EMFILE");
  assert.throws(() => clientNetns(fd, failing(other)), other);
});
