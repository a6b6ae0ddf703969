import type { Latest } from "../async/index.ts";
import type { PeerIdentity, TlsCredentials, TlsIdentity } from "../rpc/index.ts";
import { IdentityError } from "./error.ts";
import { type IssuedToken, issueToken } from "./jwt.ts";
import type { Svid } from "./read-svid.ts";
import { SvidRotation, type SvidRotationOptions } from "./svid-rotation.ts";
import { verifyPeerChain } from "./verify-peer-chain.ts";

/** For whom a token is, and until when its certificate is good. */
type TokenPeer = Pick<PeerIdentity, "spiffeId" | "notAfterMs">;

/** Who we are and whom we trust, kept up to date by the SPIRE agent. */
export class Identity implements TlsIdentity {
  readonly #options: SvidRotationOptions;
  readonly #rotation: SvidRotation;
  /** The SVIDs behind what connections have shown; each is gone with the last of them. */
  readonly #shown = new WeakMap<object, Svid>();

  /**
   * Starts to follow the Workload API; `ready` waits. A lost agent is dialled again for ever, and the last SVID and bundles are
   * kept meanwhile.
   * @throws {IdentityError} kind "bad-socket"
   */
  constructor(options: SvidRotationOptions) {
    this.#options = options;
    this.#rotation = new SvidRotation(options);
  }

  /** Our SVID; another one after each rotation. */
  get current(): Latest<Svid> {
    return this.#rotation.current;
  }

  /** The first SVID, awaited for as long as it takes; rejects only with the signal's reason. */
  ready(signal?: AbortSignal): Promise<Svid> {
    return this.current.first(signal);
  }

  credentials(): TlsCredentials {
    const svid = this.#svid();
    const shown = { certChainPem: svid.certChainPem, keyPem: svid.keyPem };
    this.#shown.set(shown, svid);
    return shown;
  }

  verifyPeer(chainDer: readonly Buffer[]): PeerIdentity {
    const { id, leaf } = verifyPeerChain(
      chainDer,
      this.#rotation.bundles.value ?? new Map(),
      this.#options.clock.now(),
    );
    return {
      spiffeId: id,
      certificatePem: leaf.x509.toString(),
      notBeforeMs: leaf.notBeforeMs,
      notAfterMs: leaf.notAfterMs,
    };
  }

  onRotate(listener: () => void): () => void {
    return this.current.onChange(listener);
  }

  /** Calls back when our SVID is another one, or the authorities that we trust are others. Returns how to stop. */
  onChange(listener: () => void): () => void {
    const stops = [this.current, this.#rotation.bundles].map((latest) => latest.onChange(listener));
    return () => {
      for (const stop of stops) stop();
    };
  }

  /**
   * A token for one call to, or from, this peer, made again each time.
   * @param shown what `credentials` gave for the connection with the peer: only that key proves anything to it. Our newest
   *   SVID is taken where there is none
   * @throws {IdentityError} kind "no-svid" or "expired"
   */
  issueToken(peer: TokenPeer | undefined, lifetimeMs: number, shown?: object): IssuedToken {
    const forPeer = peer === undefined ? {} : { audience: peer.spiffeId, peerNotAfterMs: peer.notAfterMs };
    const svid = (shown && this.#shown.get(shown)) ?? this.#svid();
    const { problem } = this.#rotation;
    return issueToken(svid, { ...forPeer, lifetimeMs, nowMs: this.#options.clock.now(), problem });
  }

  /** Stops following the agent; the last SVID stays usable. */
  close(): Promise<void> {
    return this.#rotation.close();
  }

  #svid(): Svid {
    const svid = this.current.value;
    if (svid !== undefined) return svid;
    throw new IdentityError({ kind: "no-svid", waitsFor: this.#rotation.waitsFor });
  }
}
