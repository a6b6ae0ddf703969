import assert from "node:assert/strict";
import { test } from "node:test";
import { createIpam } from "./ipam.ts";

test("createIpam() keeps the first address for the endpoint and leases the rest", () => {
  const ipam = createIpam("172.16.1.100/30");
  assert.equal(ipam.own, "172.16.1.100/32");
  assert.deepEqual(["a", "b", "a"].map(ipam.lease), ["172.16.1.101/32", "172.16.1.102/32", "172.16.1.101/32"]);
});

test("Ipam.lease() says when no address is left and gives a released one again", () => {
  const ipam = createIpam("10.0.0.0/31");
  ipam.lease("a");
  assert.throws(() => ipam.lease("b"), /all 1 are given out/);
  ipam.release("a");
  assert.equal(ipam.lease("b"), "10.0.0.1/32");
});

const sixes = [
  { prefix: "2001:db8::/120", own: "2001:db8::/128", first: "2001:db8::1/128" },
  { prefix: "fd00:1:2:3:4:5:6:0/112", own: "fd00:1:2:3:4:5:6:0/128", first: "fd00:1:2:3:4:5:6:1/128" },
  { prefix: "2001:db8:0:1::/64", own: "2001:db8:0:1::/128", first: "2001:db8:0:1::1/128" },
  { prefix: "::/120", own: "::/128", first: "::1/128" },
  { prefix: "fd00:0:0:1::4/126", own: "fd00:0:0:1::4/128", first: "fd00:0:0:1::5/128" },
];
for (const { prefix, own, first } of sixes) {
  test(`createIpam() writes the addresses of ${prefix} as the kernel does`, () => {
    const ipam = createIpam(prefix);
    assert.equal(ipam.own, own);
    assert.equal(ipam.lease("a"), first);
  });
}

test("createIpam() refuses what is no prefix", () => {
  for (const text of ["172.16.1.0", "172.16.1.0/33", "x/8", "2001:db8::/129"])
    assert.throws(() => createIpam(text), SyntaxError);
});
