import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ConnectionSchema } from "../../gen/connection_pb.ts";
import { type PathCheck, PolicyError, type PolicyFault } from "../../identity/index.ts";
import { NotBegun, type PeerIdentity, type TlsCredentials } from "../../rpc/index.ts";
import { NsmError } from "../fault.ts";
import { callOver, connectionWith, HandClock, paperToken, peerNamed } from "../testing/fakes.ts";
import { admit, signAnswer } from "./authorize.ts";

const shown = { certChainPem: "our certificate", keyPem: "" };
const theirs = paperToken("nsmgr", "fwd", 5_000);
const peer = peerNamed("nsmgr-a");
const theirName = peer.spiffeId;

/** A caller whose policy check ends in this fault, or well. */
function setUp(fault: PolicyFault | undefined, canRenew: boolean) {
  let requested = 0;
  const checked: string[][] = [];
  const renew = () => {
    requested += 1;
    return canRenew;
  };
  const segments = [
    { name: "nsmgr", id: "a", token: theirs },
    { name: "fwd", id: "b", token: "" },
    { name: "nse", id: "c", token: "of an earlier answer" },
  ];
  const connection = create(ConnectionSchema, { id: "b", path: { index: 1, pathSegments: segments } });
  const call = callOver(connectionWith(peer, { shown, renew }));
  const gate = {
    issueToken: (audience: PeerIdentity, by: TlsCredentials | undefined) => ({
      token: `for ${audience.spiffeId} by ${by?.certChainPem}`,
      expiresMs: 7000,
    }),
    checkPath(path: PathCheck) {
      checked.push(path.segments.map(({ token }) => token));
      if (fault) throw new PolicyError("policies/server/prev_token_signed.rego", fault);
    },
    manager: { spiffeId: undefined },
    clock: new HandClock(),
  };
  const admitting = () => admit(gate, call, { connection, place: { index: 1 }, owner: undefined });
  return { gate, call, connection, admitting, checked, requested: () => requested };
}

const otherKey: PolicyFault = { kind: "bad-signature", segment: 0, subject: theirName, signer: theirName };

test("admit() has a caller come back that signs in its own name with another key than it has shown", () => {
  const { admitting, requested } = setUp(otherKey, true);
  assert.throws(admitting, NotBegun);
  assert.equal(requested(), 1);
});

test("admit() refuses a caller that has come back with the same certificate", () => {
  const { admitting, requested } = setUp(otherKey, false);
  assert.throws(admitting, PolicyError);
  assert.equal(requested(), 1);
});

for (const fault of [
  { kind: "bad-signature", segment: 0, subject: "spiffe://test/another", signer: theirName },
  { kind: "wrong-subject", segment: 0, subject: "spiffe://test/another", signer: theirName },
  { kind: "expired", segment: 0 },
] as const) {
  test(`admit() refuses ${JSON.stringify(fault)} at once: a newer certificate would not help`, () => {
    const { admitting, requested } = setUp(fault, true);
    assert.throws(admitting, PolicyError);
    assert.equal(requested(), 0);
  });
}

test("admit() has the policies judge the path as far as us, and nothing of what the caller says is behind us", () => {
  const { admitting, checked, connection } = setUp(undefined, false);
  assert.equal(admitting().peer, peer);
  assert.equal(connection.path?.pathSegments[1]?.expires?.seconds, 7n);
  assert.deepEqual(checked, [[theirs, "for spiffe://test/nsmgr-a by our certificate"]]);
});

test("admit() refuses a caller that shows no certificate, and one that the path does not name", () => {
  const { gate, call, connection } = setUp(undefined, false);
  const place = { index: 1, callerIndex: 0 };
  const noPeer = { ...call, connection: { ...call.connection, peer: undefined } };
  const isNoIdentity = (error: unknown) => error instanceof NsmError && error.fault.kind === "no-identity";
  assert.throws(() => admit(gate, noPeer, { connection, place, owner: undefined }), isNoIdentity);
  const first = { ...place, index: 0 };
  assert.throws(() => admit(gate, call, { connection, place: first, owner: undefined }), isNoIdentity);
});

test("signAnswer() signs our token for the next hop with the key that the caller has seen", () => {
  const { gate, call, connection } = setUp(otherKey, true);
  signAnswer(gate, call, { answer: connection, nextHop: peerNamed("nse") });
  const own = connection.path?.pathSegments[1];
  assert.equal(own?.token, `for ${peerNamed("nse").spiffeId} by our certificate`);
  assert.equal(own?.expires?.seconds, 7n);
  assert.equal(connection.path?.pathSegments[0]?.token, theirs);
});
