// What SECURITY.md promises in numbers is so, and what it says holds a promise is there.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { UNKNOWN_PEER_FDS_LIMIT } from "../src/kernel/index.ts";
import { defaultLimits } from "../src/rpc/index.ts";
import { attacks } from "./hostile/attacks.ts";

const text = readFileSync("SECURITY.md", "utf8");

test("SECURITY.md has the number of descriptors that lie here", () => {
  const said = /at most (\d+) on a connection before its handshake and (\d+) in all, (\d+) of one SPIFFE ID/.exec(text);
  const { unknownDescriptors, descriptors } = defaultLimits;
  assert.deepEqual(said?.slice(1).map(Number), [UNKNOWN_PEER_FDS_LIMIT, unknownDescriptors, descriptors.each]);
});

test("SECURITY.md names tests and attacks that there are", () => {
  const files = [...text.matchAll(/`([^` ]+\.test\.ts)`/g)].map(([, path = ""]) => path);
  assert.ok(files.length > 30);
  assert.deepEqual(
    files.filter((path) => !existsSync(path)),
    [],
  );
  const played = [...text.matchAll(/`(\w+)` in `npm run hostile`/g)].map(([, name]) => name);
  assert.ok(played.length > 2);
  const known = new Set(attacks.map(({ name }) => name));
  assert.deepEqual(
    played.filter((name) => name === undefined || !known.has(name)),
    [],
  );
});
