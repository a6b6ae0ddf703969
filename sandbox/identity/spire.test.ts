import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../src/async/index.ts";
import { Spire, verifyChain } from "./spire.ts";

function believes(spire: Spire, chain: readonly Buffer[]): string {
  return verifyChain(chain, spire.bundles(), systemClock.now()).spiffeId;
}

test("Spire.svid() is believed by its own bundle, and gets a new key on rotation", () => {
  const spire = new Spire({ clock: systemClock });
  let changes = 0;
  spire.onChange(() => changes++);
  const id = spire.idOf("nsmgr");
  const first = spire.svid(id);
  assert.equal(believes(spire, first.chainDer), "spiffe://sandbox.test/nsmgr");
  assert.equal(spire.svid(id), first);
  spire.rotate(id);
  assert.notEqual(spire.svid(id).keyPem, first.keyPem);
  assert.equal(changes, 1);
});

test("Spire.replaceAuthority() keeps the old root trusted only on demand", () => {
  const spire = new Spire({ clock: systemClock });
  const { chainDer } = spire.svid(spire.idOf("a"));
  spire.replaceAuthority({ keepOld: true });
  assert.equal(believes(spire, chainDer), "spiffe://sandbox.test/a");
  spire.replaceAuthority({ keepOld: false });
  assert.throws(() => believes(spire, chainDer), /no root of sandbox.test/);
});

test("Spire.federate() makes SVIDs of another domain known", () => {
  const spire = new Spire({ clock: systemClock });
  assert.throws(() => spire.svid("spiffe://other.test/x"), /no authority/);
  spire.federate("other.test");
  assert.equal(believes(spire, spire.svid("spiffe://other.test/x").chainDer), "spiffe://other.test/x");
});

test("verifyChain() refuses an expired SVID", () => {
  const spire = new Spire({ clock: systemClock, lifetimeMs: 1000 });
  const { chainDer } = spire.svid(spire.idOf("a"));
  assert.throws(() => verifyChain(chainDer, spire.bundles(), systemClock.now() + 2000), /has expired/);
});
