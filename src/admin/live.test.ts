import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import type { ServerResponse } from "node:http";
import { test } from "node:test";
import { HandClock, settled } from "../nsm/testing/fakes.ts";
import { LiveViews } from "./live.ts";
import type { NodeView } from "./view-form.ts";

/** A reader; `isFull` says that it does not read. */
class PaperReader extends EventEmitter {
  readonly views: string[] = [];
  beats = 0;
  isFull = false;
  isDestroyed = false;

  write(text: string): boolean {
    if (text.startsWith("data: ")) this.views.push(text.slice("data: ".length).trim());
    else this.beats += 1;
    return !this.isFull;
  }

  destroy(): void {
    this.isDestroyed = true;
  }
}

function watching() {
  const clock = new HandClock();
  const listeners = new Set<() => void>();
  let version = 1;
  const source = {
    view: () => ({ version: String(version) }) as NodeView,
    onChange(listener: () => void) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  const live = new LiveViews(source, clock);
  const change = () => {
    version += 1;
    for (const listener of listeners) listener();
  };
  const watch = () => {
    const reader = new PaperReader();
    live.serve(reader as unknown as ServerResponse, (view) => view.version);
    return reader;
  };
  return { clock, listeners, live, change, watch };
}

test("LiveViews.serve() sends a view at once, one for a burst of changes, and each later change", async () => {
  const { clock, change, watch } = watching();
  const reader = watch();
  assert.deepEqual(reader.views, ["1"]);
  for (let at = 0; at < 3; at += 1) change();
  await clock.pass(299);
  assert.deepEqual(reader.views, ["1"]);
  await clock.pass(1);
  assert.deepEqual(reader.views, ["1", "4"]);
  await clock.pass(10_000);
  change();
  assert.deepEqual(reader.views, ["1", "4", "5"]);
});

test("LiveViews.serve() piles up nothing for a reader that does not read, and gives it the latest when it does", async () => {
  const { clock, change, watch } = watching();
  const reader = watch();
  reader.isFull = true;
  await clock.pass(300);
  for (let at = 0; at < 5; at += 1) {
    change();
    await clock.pass(1_000);
  }
  assert.deepEqual(reader.views, ["1", "2"]);
  reader.isFull = false;
  reader.emit("drain");
  await clock.pass(300);
  assert.deepEqual(reader.views, ["1", "2", "6"]);
});

test("LiveViews.serve() leaves nothing of a reader that has gone, and has room for another one", async () => {
  const { clock, listeners, live, watch } = watching();
  const readers = Array.from({ length: 16 }, watch);
  assert.equal(live.isFull, true);
  await clock.pass(15_000);
  assert.deepEqual([readers[0]?.beats, listeners.size], [2, 16]);
  for (const reader of readers) reader.emit("close");
  await settled();
  assert.deepEqual([live.isFull, listeners.size, clock.timerCount], [false, 0, 0]);
  await clock.pass(60_000);
  assert.equal(readers[0]?.beats, 2);
});
