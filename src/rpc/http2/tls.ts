import type { Duplex } from "node:stream";
import { connect, createSecureContext, createServer, type SecureContextOptions, type TLSSocket } from "node:tls";
import { guarded } from "../../async/index.ts";
import { openPeerChain, type PeerChain } from "../../kernel/index.ts";
import type { PeerIdentity, TlsCredentials, TlsIdentity } from "../connection.ts";
import { RpcError } from "../status.ts";

/** A stream with TLS on it and a peer that was verified. */
export interface SecureStream {
  readonly socket: TLSSocket;
  readonly peer: PeerIdentity;
  /** What the peer was shown. */
  readonly shown: TlsCredentials;
}

/** HTTP/2 by its name in TLS (RFC 9113, 3.2): gRPC over TLS has no other way to say what it speaks. */
const ALPN = "h2";

/** What the peer must speak in TLS. Who speaks HTTP/1.1 need not name it. */
export type Protocol = typeof ALPN | "http/1.1";

/**
 * What a peer may sign its part of the handshake with. All keys of NSM are EC keys (its tokens are ES256), and the cost of
 * checking an ECDSA signature is the same for all that can be sent; that of RSA depends on the peer's exponent.
 */
const SIGNATURES = "ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384:ecdsa_secp521r1_sha512:ed25519";

/** TLS 1.3's, and those of 1.2 in which the server signs with such a key. */
const CIPHERS =
  "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:" +
  "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305";

/** Longest list of certificates that is read of a peer, in bytes: more than any honest chain has (identity/verify-peer-chain.ts). */
const MOST_CHAIN_BYTES = 16_384;

/** The part of the options that both ends share. OpenSSL knows no SPIFFE: it is to verify nothing, and to trust no authority. */
function contextOptions({ certChainPem, keyPem }: TlsCredentials): SecureContextOptions {
  return { cert: certChainPem, key: keyPem, ca: [], sigalgs: SIGNATURES, ciphers: CIPHERS, minVersion: "TLSv1.2" };
}

/**
 * For the start, before the first peer: finds out whether this Node lets the work of OpenSSL be bounded.
 * @throws {Error} that says what it lacks
 */
export function checkTls(): void {
  openPeerChain(createSecureContext({ ca: [] }), MOST_CHAIN_BYTES).close();
}

/**
 * TLS as a server on a stream that was accepted. The stream ends with the TLS socket, and at once when the handshake fails.
 * A TLS server object per connection costs 0.3 ms and gives each connection the newest certificate; handing a bare
 * `TLSSocket` to node:http2 does not work: it stays "connecting" for ever.
 * @throws {RpcError} UNAVAILABLE with the reason.
 */
export async function acceptTls(
  raw: Duplex,
  identity: TlsIdentity,
  signal: AbortSignal,
  protocol: Protocol = ALPN,
): Promise<SecureStream> {
  const shown = identity.credentials();
  const server = createServer({
    ...contextOptions(shown),
    requestCert: true,
    rejectUnauthorized: false, // verifyPeer decides
    ALPNProtocols: [protocol],
  });
  // The context that createServer() made: it takes none that exists.
  const chain = openPeerChain((server as { _sharedCreds?: unknown })._sharedCreds, MOST_CHAIN_BYTES);
  const done = Promise.withResolvers<TLSSocket>();
  server.once("secureConnection", done.resolve);
  server.on("tlsClientError", done.reject);
  return await verified(raw, identity, { signal, protocol, shown, chain, done }, () => server.emit("connection", raw));
}

/**
 * TLS as a client on a stream that was dialled.
 * @throws {RpcError} UNAVAILABLE with the reason.
 */
export async function connectTls(raw: Duplex, identity: TlsIdentity, signal: AbortSignal): Promise<SecureStream> {
  const shown = identity.credentials();
  const secureContext = createSecureContext(contextOptions(shown));
  const chain = openPeerChain(secureContext, MOST_CHAIN_BYTES);
  const done = Promise.withResolvers<TLSSocket>();
  return await verified(raw, identity, { signal, protocol: ALPN, shown, chain, done }, () => {
    const socket = connect({
      socket: raw,
      secureContext,
      rejectUnauthorized: false, // verifyPeer decides
      checkServerIdentity: () => undefined, // an SVID has no host name
      ALPNProtocols: [ALPN],
    });
    socket.on("error", done.reject);
    const connected = guarded("tls", () => done.resolve(socket), done.reject);
    socket.once("secureConnect", connected);
  });
}

interface Handshake {
  readonly signal: AbortSignal;
  readonly protocol: Protocol;
  readonly shown: TlsCredentials;
  readonly chain: PeerChain;
  readonly done: PromiseWithResolvers<TLSSocket>;
}

async function verified(
  raw: Duplex,
  identity: TlsIdentity,
  { signal, protocol, shown, chain, done }: Handshake,
  begin: () => void,
): Promise<SecureStream> {
  const lost = guarded("tls", () => done.reject(new Error("the peer closed the connection")));
  const aborted = guarded("abort", () => done.reject(signal.reason));
  raw.on("error", done.reject);
  raw.once("close", lost);
  signal.addEventListener("abort", aborted, { once: true });
  let socket: TLSSocket | undefined;
  try {
    if (signal.aborted) aborted();
    else begin();
    socket = await done.promise;
    endTogether(socket, raw);
    const isUnnamed = protocol !== ALPN && socket.alpnProtocol === false;
    if (socket.alpnProtocol !== protocol && !isUnnamed)
      throw new Error(
        `the peer does not speak ${protocol === ALPN ? "HTTP/2" : "HTTP/1.1"} (ALPN ${socket.alpnProtocol})`,
      );
    const peer = identity.verifyPeer(chain.der);
    return { socket, peer, shown };
  } catch (error) {
    socket?.destroy(); // it may own the handle of the raw socket by now
    raw.destroy();
    throw new RpcError("UNAVAILABLE", `TLS handshake failed: ${describe(error)}`, { cause: error });
  } finally {
    chain.close();
    raw.off("close", lost);
    signal.removeEventListener("abort", aborted);
  }
}

/** Neither half outlives the other: descriptors in flight belong to the raw stream and must be closed with it. */
export function endTogether(socket: TLSSocket, raw: Duplex): void {
  // Half open like the stream beneath it, TLS would outlive the peer's farewell for as long as a call is open.
  const end = guarded("tls", () => void socket.destroy());
  // Its user sees the close. An alert of the peer, as of one that refuses our certificate, is an error without one in Node.
  socket.on("error", end);
  const endSoon = guarded("tls", () => void setImmediate(end), end);
  socket.once("end", endSoon);
  const endRaw = guarded("tls", () => void raw.destroy());
  socket.once("close", endRaw);
  raw.once("close", end);
}

/** OpenSSL's errors say `…:tlsv1 alert bad certificate:…`; the reason is one field of them. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { reason, code } = error as Error & { readonly reason?: string; readonly code?: string };
  return reason === undefined ? error.message : `${reason} (${code})`;
}
