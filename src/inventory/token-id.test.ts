import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePciAddress } from "../pci/index.ts";
import { isTokenId, tokenId } from "./token-id.ts";

const address = parsePciAddress("0000:01:00.1");

test("tokenId() is the UUIDv5 of address and resource under the namespace", () => {
  // python3 -c 'import uuid; print(uuid.uuid5(uuid.NAMESPACE_DNS, "0000:01:00.1 d1/intel"))'
  const id = tokenId("6ba7b810-9dad-11d1-80b4-00c04fd430c8", address, "d1/intel");
  assert.equal(id, "sriov-ec5589ed-b9d3-569a-8398-ff11a9315c32");
  assert.ok(isTokenId(id));
});

test("tokenId() differs by VF, resource and node", () => {
  const node = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
  const ids = [
    tokenId(node, address, "d1/intel"),
    tokenId(node, address, "d1/10G"),
    tokenId(node, parsePciAddress("0000:01:00.2"), "d1/intel"),
    tokenId("6ba7b811-9dad-11d1-80b4-00c04fd430c8", address, "d1/intel"),
  ];
  assert.equal(new Set(ids).size, 4);
});

test("tokenId() refuses a namespace that is no UUID, and does not repeat it", () => {
  assert.throws(() => tokenId("secret", address, "d1/intel"), { name: "TypeError", message: /^(?!.*secret)/ });
});

for (const text of ["", "sriov-", "sriov-1", "other-6ba7b810-9dad-11d1-80b4-00c04fd430c8"]) {
  test(`isTokenId() refuses "${text}"`, () => assert.equal(isTokenId(text), false));
}
