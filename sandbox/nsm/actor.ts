import { createPrivateKey, type KeyObject } from "node:crypto";
import type { Clock } from "../../src/async/index.ts";
import type { PeerIdentity, TlsIdentity } from "../../src/rpc/index.ts";
import { type IssuedSvid, type Spire, verifyChain } from "../identity/spire.ts";
import { headersOfToken, type PeerToken, signToken, type VerifyToken, verifyToken } from "./peer-token.ts";

/** Someone on the sandbox node who can prove who they are: what they show, whom they believe, the tokens they sign. */
export interface Actor {
  readonly spiffeId: string;
  /** For handshakes: each shows the newest certificate. */
  readonly tls: TlsIdentity;
  /** The same for a client that dials again after each renewal, as NSM's do for each call. */
  readonly redialling: TlsIdentity;
  /** A new token for the peer with this SPIFFE ID. */
  token(audience: string | undefined): PeerToken;
  /** How it checks those of others. */
  readonly verifyToken: VerifyToken;
  /** The headers of a call to `peer`; pass it to an RpcClient as `credentials`. */
  readonly headers: (peer: PeerIdentity | undefined) => Readonly<Record<string, string>>;
}

export interface ActorOptions {
  readonly spire: Spire;
  readonly spiffeId: string;
  /** Lifetime of the tokens in ms; ten minutes by default. */
  readonly tokenLifetimeMs?: number;
  readonly clock: Clock;
  /** A JWT library by default. */
  readonly verifyToken?: VerifyToken | undefined;
}

/** An actor whose SVID comes straight from the sandbox's authority. */
export function createActor(options: ActorOptions): Actor {
  const { spire, spiffeId, clock, tokenLifetimeMs = 600_000 } = options;
  const keys = new WeakMap<IssuedSvid, KeyObject>();
  const keyOf = (svid: IssuedSvid) => {
    const key = keys.get(svid) ?? createPrivateKey(svid.keyPem);
    keys.set(svid, key);
    return key;
  };
  const token = (audience: string | undefined) => {
    const svid = spire.svid(spiffeId);
    const expiresMs = Math.min(clock.now() + tokenLifetimeMs, svid.notAfterMs);
    return signToken(keyOf(svid), { subject: spiffeId, audience, expiresMs });
  };
  const tls: TlsIdentity = {
    credentials() {
      const { certPem, keyPem } = spire.svid(spiffeId);
      return { certChainPem: certPem, keyPem };
    },
    verifyPeer: (chainDer) => verifyChain(chainDer, spire.bundles(), clock.now()),
    onRotate: () => () => {}, // as grpc-go: a connection shows what it has shown at first, whatever is renewed since
  };
  return {
    spiffeId,
    tls,
    redialling: { ...tls, onRotate: (listener) => spire.onChange(listener) },
    token,
    verifyToken: options.verifyToken ?? verifyToken,
    headers: (peer) => headersOfToken(token(peer?.spiffeId)),
  };
}
