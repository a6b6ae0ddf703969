import assert from "node:assert/strict";
import { test } from "node:test";
import { FileWindow } from "./file-window.ts";

const CHUNK_BYTES = 16 * 1024;
const KEPT_CHUNKS = 1_024;

test("FileWindow keeps so many chunks in memory and no more, the latest ones", async () => {
  const reads: number[] = [];
  const read = async (position: number) => {
    reads.push(position / CHUNK_BYTES);
    return Buffer.from([1]);
  };
  const window = new FileWindow({ sizeBytes: Number.MAX_SAFE_INTEGER, read });
  const at = (chunk: number) => window.at(chunk * CHUNK_BYTES, 1);
  for (let chunk = 0; chunk <= KEPT_CHUNKS; chunk++) await at(chunk);
  reads.splice(0);
  for (const chunk of [KEPT_CHUNKS, 1, 0]) await at(chunk);
  assert.deepEqual(reads, [0]);
});
