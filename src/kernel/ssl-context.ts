import { inspect } from "node:util";
import { openSslCalls } from "./native.ts";

/** SSL_CTRL_GET_MAX_CERT_LIST and SSL_CTRL_SET_MAX_CERT_LIST (include/openssl/ssl.h). */
const GET_MAX_CERT_LIST = 50;
const SET_MAX_CERT_LIST = 51;

/** What OpenSSL begins with (SSL_MAX_CERT_LIST_DEFAULT, include/openssl/ssl.h; crypto/x509/x509_vpm.c: -1 is "not set"). */
const FRESH = { maxCertList: 102_400n, depth: -1n };

/**
 * A chain of which OpenSSL looks for no issuer, not even of the leaf, so that it checks no signature in it
 * (build_chain and internal_verify, crypto/x509/x509_vfy.c: one issuer more than the depth is looked for; 0 still finds one).
 */
const NO_ISSUER = -2;

/**
 * Keeps OpenSSL from verifying what a peer sends: it would follow up to 100 KB of certificates and check each signature, with
 * any key, before anybody is asked. Who asks with `rejectUnauthorized: false` verifies the chain himself, and gets it whole
 * and unverified. Node has no option for either bound, so they are set in the `SSL_CTX` behind the context; its address
 * comes from what Node prints of it, and is believed only if what lies there looks like a fresh context.
 * @param context what `tls.createSecureContext()` gives, before a connection uses it
 * @param maxBytes longest list of certificates that is read of a peer
 * @throws {Error} that says what this Node lacks
 */
export function boundPeerChains(context: unknown, maxBytes: number): void {
  const address = addressOfContext(context);
  const calls = openSslCalls();
  const list = BigInt(calls.control(address, GET_MAX_CERT_LIST, 0, null));
  const depth = BigInt(calls.verifyDepth(address));
  if (list !== FRESH.maxCertList || depth !== FRESH.depth) throw lacking("its SSL_CTX is not as OpenSSL 3 makes it");
  calls.control(address, SET_MAX_CERT_LIST, maxBytes, null);
  calls.setVerifyDepth(address, NO_ISSUER);
}

function addressOfContext(context: unknown): bigint {
  const external = (context as { context?: { _external?: unknown } } | undefined)?.context?._external;
  const hex = /^\[External: ([0-9a-f]+)\]$/.exec(inspect(external))?.[1];
  if (hex === undefined) throw lacking("a secure context does not show its SSL_CTX");
  return BigInt(`0x${hex}`);
}

function lacking(problem: string): Error {
  return new Error(`Cannot bound the certificates of TLS peers: ${problem}; want the official build of Node 24`);
}
