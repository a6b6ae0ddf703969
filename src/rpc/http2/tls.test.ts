import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { createConnection, createServer as createTcpServer, type Socket } from "node:net";
import { type TestContext, test } from "node:test";
import { connect, createServer, type TLSSocket } from "node:tls";
import { makeOddCertificate, type OddCertificate } from "../../../sandbox/identity/odd-certificate.ts";
import { until, within } from "../../../test/scenes/until.ts";
import type { TlsIdentity } from "../connection.ts";
import { acceptTls, connectTls, type SecureStream } from "./tls.ts";

const root = makeOddCertificate({ subject: "root" });
const ours = makeOddCertificate({ subject: "ours", issuer: root, isCa: false, keyUsage: 1 });

/** Accepts every peer and keeps what was shown: whatever is not bounded here is OpenSSL's doing. */
function seeing(): TlsIdentity & { readonly seen: (readonly Buffer[])[] } {
  const seen: (readonly Buffer[])[] = [];
  return {
    seen,
    credentials: () => ({ certChainPem: pem(ours), keyPem: keyOf(ours) }),
    verifyPeer(chainDer) {
      seen.push(chainDer);
      return { spiffeId: "spiffe://example.org/peer", certificatePem: "", notBeforeMs: 0, notAfterMs: 0 };
    },
    onRotate: () => () => {},
  };
}

function pem(...chain: readonly OddCertificate[]): string {
  return chain
    .map(({ der }) => `-----BEGIN CERTIFICATE-----\n${der.toString("base64")}\n-----END CERTIFICATE-----\n`)
    .join("");
}

const keyOf = ({ key }: OddCertificate) => key.export({ type: "pkcs8", format: "pem" }).toString();

/** A peer with a chain of its own, at either end of a connection with us. */
async function meet(
  t: TestContext,
  role: "client" | "server",
  chain: readonly OddCertificate[],
  ALPNProtocols: string[] = ["h2"],
  signal: AbortSignal = new AbortController().signal,
) {
  const [theirs, raw] = await socketPair(t);
  const [leaf] = chain;
  assert.ok(leaf);
  const credentials = { cert: pem(...chain), key: keyOf(leaf), rejectUnauthorized: false, ALPNProtocols };
  const identity = seeing();
  let peer: TLSSocket | undefined;
  const keep = (socket: TLSSocket) => {
    peer = socket.on("error", () => {});
  };
  t.after(() => peer?.destroy());
  let handshake: Promise<SecureStream>;
  if (role === "client") {
    keep(connect({ ...credentials, socket: theirs }));
    handshake = acceptTls(raw, identity, signal);
  } else {
    const server = createServer(credentials, keep).on("tlsClientError", () => {});
    server.emit("connection", theirs);
    handshake = connectTls(raw, identity, signal);
  }
  return { handshake, seen: identity.seen, raw };
}

function socketPair(t: TestContext): Promise<readonly [Socket, Socket]> {
  return new Promise((resolve) => {
    const server = createTcpServer((accepted) => {
      for (const socket of [accepted, dialled]) socket.on("error", () => {});
      t.after(() => [accepted, dialled].forEach((socket) => void socket.destroy()));
      server.close();
      resolve([accepted, dialled]);
    });
    let dialled: Socket;
    server.listen(0, "127.0.0.1", () => {
      dialled = createConnection((server.address() as { port: number }).port, "127.0.0.1");
    });
  });
}

/** So many authorities, one above the other, none of which has signed what is below it; leaf first. */
function unsigned(length: number): readonly OddCertificate[] {
  const otherPeer = makeOddCertificate({ subject: "other peer" });
  const chain: OddCertificate[] = [];
  for (let at = length; at >= 0; at--) {
    const issuer = { subject: `authority ${at}`, key: otherPeer.key };
    const subject = at === 0 ? "leaf" : `authority ${at - 1}`;
    chain.unshift(makeOddCertificate({ subject, issuer, isCa: at > 0, keyUsage: at > 0 ? 0x60 : 1 }));
  }
  return chain;
}

/** An authority with a key on a curve that NIST has no name for. */
const koblitz = makeOddCertificate({
  subject: "koblitz",
  issuer: root,
  key: generateKeyPairSync("ec", { namedCurve: "secp256k1" }),
});

for (const role of ["client", "server"] as const) {
  test(`TLS survives an authority of a ${role} with a key on secp256k1: Node's getPeerCertificate() does not`, async (t) => {
    const chain = [makeOddCertificate({ subject: "leaf", issuer: koblitz, isCa: false, keyUsage: 1 }), koblitz];
    const { handshake, seen } = await meet(t, role, chain);
    await handshake;
    assert.deepEqual(seen, [chain.map(({ der }) => der)]);
  });

  test(`TLS hands over certificates of a ${role} that lead nowhere, as they came`, async (t) => {
    const chain = [ours, root, makeOddCertificate({ subject: "another" }), root];
    const { handshake, seen } = await meet(t, role, chain);
    await handshake;
    assert.deepEqual(seen, [chain.map(({ der }) => der)]);
  });

  test(`TLS hands over the whole chain of a ${role}, and lets OpenSSL check no signature of it`, async (t) => {
    const chain = unsigned(9);
    const { handshake, seen } = await meet(t, role, chain);
    const { socket } = await handshake;
    assert.deepEqual(seen, [chain.map(({ der }) => der)]);
    // OpenSSL's last word. Had it checked signatures, it would be CERT_SIGNATURE_FAILURE.
    assert.equal(String(socket.authorizationError), "UNABLE_TO_VERIFY_LEAF_SIGNATURE");
  });

  test(`TLS reads no longer chain of a ${role} than is verified`, async (t) => {
    const { handshake, seen } = await meet(t, role, unsigned(50));
    await assert.rejects(handshake, /TLS handshake failed: excessive message size/);
    assert.deepEqual(seen, []);
  });

  test(`TLS parts with a ${role} that does not say that it speaks HTTP/2`, async (t) => {
    const { handshake, seen, raw } = await meet(t, role, [ours], []);
    await assert.rejects(handshake, /the peer does not speak HTTP\/2 \(ALPN false\)/);
    assert.deepEqual([seen, raw.destroyed], [[], true]);
  });

  test(`TLS ends the stream and the socket with a ${role} together`, async (t) => {
    for (const first of ["raw", "socket"] as const) {
      const { handshake, raw } = await meet(t, role, [ours]);
      const { socket } = await handshake;
      (first === "raw" ? raw : socket).destroy();
      await until("both have ended", () => raw.destroyed && socket.destroyed);
    }
  });

  test(`TLS with a ${role} is over where its stream is lost, or it was given up before`, async (t) => {
    const { handshake, raw } = await meet(t, role, [ours]);
    raw.destroy();
    await assert.rejects(
      within("the loss is noticed", handshake),
      /TLS handshake failed: the peer closed the connection/,
    );
    const late = await meet(t, role, [ours], ["h2"], AbortSignal.abort(new Error("too late")));
    await assert.rejects(late.handshake, /too late/);
    assert.deepEqual([late.seen, late.raw.destroyed], [[], true]);
  });

  test(`TLS takes no signature of a ${role} with an RSA key`, async (t) => {
    const key = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const leaf = makeOddCertificate({ subject: "leaf", issuer: root, key, isCa: false, keyUsage: 1 });
    const { handshake, seen } = await meet(t, role, [leaf]);
    if (role === "server") await assert.rejects(handshake, /TLS handshake failed/);
    else await handshake; // as one that shows nothing
    assert.deepEqual(seen, role === "server" ? [] : [[]]);
  });
}
