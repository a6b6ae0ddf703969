import assert from "node:assert/strict";
import { type ClientHttp2Session, connect } from "node:http2";
import { duplexPair } from "node:stream";
import { type TestContext, test } from "node:test";
import { onEscapedError } from "../../async/index.ts";
import type { RpcError } from "../status.ts";
import { SessionConnection } from "./session.ts";

/** A connection whose peer says nothing. */
function open(t: TestContext): { session: ClientHttp2Session; connection: SessionConnection } {
  const [ours] = duplexPair();
  const session = connect("http://localhost", { createConnection: () => ours });
  t.after(() => session.destroy());
  const below = { stream: ours, fds: undefined, remote: "the peer", source: "pid 1" };
  return { session, connection: new SessionConnection(session, below, undefined) };
}

test("SessionConnection.follow() ends the session with what a listener throws", (t) => {
  const { session, connection } = open(t);
  t.after(onEscapedError(() => {}));
  connection.follow("timeout", () => {
    throw new Error("a fault");
  });
  session.emit("timeout");
  const { code, message }: RpcError = connection.closed.reason;
  assert.deepEqual([code, message], ["UNAVAILABLE", "the connection with the peer broke: a fault"]);
  assert.equal(session.destroyed, true);
});

test("SessionConnection.sayFarewell() lets no further call begin", (t) => {
  const { session, connection } = open(t);
  connection.sayFarewell();
  assert.deepEqual([session.closed, connection.farewell.aborted, connection.closed.aborted], [true, true, false]);
});
