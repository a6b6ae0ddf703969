import assert from "node:assert/strict";
import { test } from "node:test";
import type { Address, Neighbour } from "../kernel/index.ts";
import { NOTHING_OWNED, OUR_PROTOCOL, ownsAddress, ownsNeighbour } from "./owned.ts";
import { broadcastOf, parsePrefix } from "./prefix.ts";

test("ownsAddress() goes by the kernel's mark, and by memory only where the kernel keeps none", () => {
  const owned = { ...NOTHING_OWNED, addresses: ["10.0.0.1/24"] };
  const of = (protocol: number) => ownsAddress(owned, { address: "10.0.0.1", prefixLength: 24, protocol } as Address);
  assert.deepEqual([of(OUR_PROTOCOL), of(0), of(OUR_PROTOCOL + 1)], [true, true, false]);
});

test("ownsNeighbour() leaves what was learned, whatever mark it has", () => {
  const of = (permanent: boolean) => ownsNeighbour({ permanent, protocol: OUR_PROTOCOL } as Neighbour);
  assert.deepEqual([of(true), of(false)], [true, false]);
});

test("broadcastOf() has none for a network of two hosts", () => {
  const of = (text: string) => broadcastOf(parsePrefix(text) ?? assert.fail(text));
  assert.deepEqual(["10.0.0.0/30", "10.0.0.0/31", "10.0.0.1/32"].map(of), ["10.0.0.3", undefined, undefined]);
});
