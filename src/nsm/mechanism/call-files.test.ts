import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { type Mechanism, MechanismSchema } from "../../gen/connection_pb.ts";
import { FdExchange } from "../../kernel/fd-exchange.ts";
import { Fd } from "../../kernel/index.ts";
import { HandClock, settled } from "../testing/fakes.ts";
import { FilesOfCalls } from "./call-files.ts";
import { formatInodeUrl, parseInodeUrl } from "./inode-url.ts";

const never = new AbortController().signal;

/** One connection, a file that its peer sends as often as it likes, and the mechanism that names it. */
function setUp(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), "passed-"));
  writeFileSync(join(folder, "netns"), "");
  const file = Fd.ofPath(join(folder, "netns"));
  const fds = new FdExchange();
  t.after(() => {
    fds.close(new Error("the test is over"));
    file.close();
    rmSync(folder, { recursive: true });
  });
  const text = formatInodeUrl(file.id());
  const named: Mechanism[] = [create(MechanismSchema, { parameters: { inodeURL: text } })];
  const clock = new HandClock();
  const files = new FilesOfCalls(clock);
  const arrive = () => fds.arrived(file.dup());
  return { clock, fds, named, files, arrive, url: parseInodeUrl(text, "the file") };
}

test("FilesOfCalls keeps what has come again for a call that is still on its way", async (t) => {
  const { fds, named, files, arrive, url } = setUp(t);
  arrive();
  const cancelled = files.open(fds, named);
  (await cancelled.receive(url, never)).close();
  arrive(); // with the headers of the next call
  cancelled.end();
  const next = files.open(fds, named);
  (await next.receive(url, never)).close();
  next.end();
  assert.equal(fds.heldCount, 0);
});

test("FilesOfCalls lets go of a file when the last call that names it ends, requested or not", async (t) => {
  const { fds, named, files, arrive } = setUp(t);
  arrive();
  const first = files.open(fds, named);
  arrive();
  const second = files.open(fds, named);
  first.end();
  first.end();
  assert.equal(fds.heldCount, 1);
  second.end();
  assert.equal(fds.heldCount, 0);
});

test("FilesOfCalls waits for a file no longer than its caller, who gets its own reason, and not without end", async (t) => {
  const { clock, fds, named, files, url } = setUp(t);
  const call = files.open(fds, named);
  const caller = new AbortController();
  const reason = new Error("the caller has gone");
  const ended: unknown[] = [];
  const receiving = call.receive(url, caller.signal).catch((error: unknown) => ended.push(error));
  caller.abort(reason);
  await settled();
  assert.deepEqual([ended, clock.timerCount], [[reason], 0]);
  await receiving;
  const failing = assert.rejects(call.receive(url, never), /it did not arrive/);
  await clock.pass(5_000);
  await failing;
  call.end();
});
