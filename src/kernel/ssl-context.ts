import { inspect } from "node:util";
import { addressOf, offHeap, onSslVerify, openSslCalls } from "./native.ts";

/** SSL_CTRL_GET_MAX_CERT_LIST and SSL_CTRL_SET_MAX_CERT_LIST (include/openssl/ssl.h). */
const GET_MAX_CERT_LIST = 50;
const SET_MAX_CERT_LIST = 51;

/** What OpenSSL begins with (SSL_MAX_CERT_LIST_DEFAULT, include/openssl/ssl.h; crypto/x509/x509_vpm.c: -1 is "not set"). */
const FRESH = { maxCertList: 102_400n, depth: -1n };

/** X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: no peer has been verified yet, and Node calls the peer not authorized. */
const NOT_VERIFIED = 21;

/** The certificates of one peer, as it sent them. */
export interface PeerChain {
  /** DER, leaf first; empty before they came, and where the peer sent none. */
  readonly der: readonly Buffer[];
  /** No connection of the context is in its handshake any more. */
  close(): void;
}

const open = new Map<bigint, Buffer[]>();
let onVerify: bigint | undefined;
let lastId = 0n;

/**
 * Has OpenSSL hand over what a peer sends, in place of verifying it: it would follow up to 100 KB of certificates and check each
 * signature, with any key, before a verifier is called. A caller with `rejectUnauthorized: false` verifies the chain itself.
 * Node's own way to the chain, getPeerCertificate(), ends the process at a key on a curve without a NIST name (24.21:
 * X509ToObject, src/crypto/crypto_x509.cc), and getPeerX509Certificate() loses the memory of all but the leaf.
 * Node has no option for any of this, so it is set in the `SSL_CTX` behind the context; its address comes from what Node prints
 * of it, and is believed only if what lies there has the form of a fresh context.
 * @param context what `tls.createSecureContext()` gives, of one connection that has not begun
 * @param maxBytes longest list of certificates that is read of a peer
 * @throws {Error} that says what this Node lacks
 */
export function openPeerChain(context: unknown, maxBytes: number): PeerChain {
  const address = addressOfContext(context);
  const calls = openSslCalls();
  const list = BigInt(calls.control(address, GET_MAX_CERT_LIST, 0, null) as number);
  const depth = BigInt(calls.verifyDepth(address) as number);
  if (list !== FRESH.maxCertList || depth !== FRESH.depth) throw lacking("its SSL_CTX is not as OpenSSL 3 makes it");
  calls.control(address, SET_MAX_CERT_LIST, maxBytes, null);
  onVerify ??= onSslVerify(take);
  lastId += 1n;
  const [id, der] = [lastId, [] as Buffer[]];
  open.set(id, der);
  calls.setVerify(address, onVerify, id);
  return { der, close: () => void open.delete(id) };
}

/** Called by OpenSSL in the middle of a handshake. 1: continue. A handshake without a caller is refused. */
function take(store: unknown, id: bigint): number {
  const der = open.get(id);
  if (der === undefined || der.length > 0) return 0;
  const { chainOf, count, at, setError } = openSslCalls();
  const chain = chainOf(store);
  const length = Number(count(chain));
  for (let index = 0; index < length; index++) der.push(encoded(at(chain, index)));
  setError(store, NOT_VERIFIED);
  return 1;
}

/** i2d_X509(3): without a place it gives the length; with one it writes there, and moves the pointer on. */
function encoded(certificate: unknown): Buffer {
  const { encode } = openSslCalls();
  const bytes = offHeap(Number(encode(certificate, null)));
  const pointer = offHeap(8);
  pointer.writeBigUInt64LE(addressOf(bytes));
  const length = Number(encode(certificate, pointer));
  if (length <= 0) throw new Error("OpenSSL cannot encode a certificate that it has read");
  return bytes.subarray(0, length);
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
