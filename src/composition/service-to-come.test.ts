import assert from "node:assert/strict";
import { test } from "node:test";
import type { JournalEntry } from "../nsm/index.ts";
import { ServiceToCome } from "./service-to-come.ts";

const entry = (connectionId: string) => ({ connectionId }) as JournalEntry;

/** A service that writes down what it is called with. */
function served() {
  const calls: string[] = [];
  const service = {
    adopt: ({ connectionId }: JournalEntry) => void calls.push(`adopt ${connectionId}`),
    endConnection: async (connectionId: string) => void calls.push(`end ${connectionId}`),
  };
  return { calls, service };
}

test("ServiceToCome keeps what is to be done with connections for the service, in its order", async () => {
  const { calls, service } = served();
  const coming = new ServiceToCome();
  coming.adopt(entry("a"));
  const ended = coming.endConnection("a");
  assert.deepEqual(calls, []);
  coming.serve(service);
  await ended;
  await coming.endConnection("b");
  assert.deepEqual(calls, ["adopt a", "end a", "end b"]);
});

test("ServiceToCome asks nothing of a service that stops", async () => {
  const { calls, service } = served();
  const coming = new ServiceToCome();
  coming.serve(service);
  coming.close();
  coming.adopt(entry("a"));
  await coming.endConnection("a");
  assert.deepEqual(calls, []);
});
