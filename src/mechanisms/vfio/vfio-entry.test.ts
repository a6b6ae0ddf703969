import assert from "node:assert/strict";
import { test } from "node:test";
import type { DeviceAccess } from "../../access/index.ts";
import { parsePciAddress } from "../../pci/index.ts";
import { AdoptedGrants } from "./vfio-entry.ts";

test("AdoptedGrants.take() leaves what the connection has of another VF: it is still to be revoked", () => {
  const [had, other] = [parsePciAddress("0000:01:10.0"), parsePciAddress("0000:01:10.2")];
  const grants = new AdoptedGrants();
  const [connectionId, access] = ["c1", {} as DeviceAccess];
  const kept = { use: "vfio", address: had, connectionId, tokenId: "t1", owner: undefined, grant: undefined } as const;
  const adopted = grants.adopt({ ...kept, before: {} }, { access, journal: { keepVf: async () => {} } });
  assert.equal(grants.take({ connectionId, address: other }), undefined);
  assert.equal(grants.take({ connectionId, address: had }), adopted);
  assert.equal(grants.take({ connectionId, address: had }), undefined);
});

test("AdoptedGrants.adopt() takes an entry once, and that of another VF of the connection for another one", () => {
  const [one, other] = [parsePciAddress("0000:01:10.0"), parsePciAddress("0000:01:10.2")];
  const grants = new AdoptedGrants();
  const around = { access: {} as DeviceAccess, journal: { keepVf: async () => {} } };
  const adopt = (address: typeof one) => {
    const kept = { use: "vfio", address, connectionId: "c1", tokenId: "t1", owner: undefined } as const;
    return grants.adopt({ ...kept, grant: undefined, before: {} }, around);
  };
  const former = adopt(one);
  assert.equal(adopt(one), former);
  assert.equal(adopt(other).entry.kept.address, other);
});
