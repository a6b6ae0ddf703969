// Who may use the admin listener and how: on loopback every process on this node, gRPC health probes included; elsewhere a peer that
// has an identity of our trust domain.
import type { Duplex } from "node:stream";
import { type AdminOptions, type AdminServer, serveAdmin } from "../admin/index.ts";
import { type Clock, startDeadline, type UndoStack } from "../async/index.ts";
import { type Identity, parseSpiffeId, trustDomainOf } from "../identity/index.ts";
import { acceptTls, RpcHealth, serveStreams } from "../rpc/index.ts";
import type { Health } from "../telemetry/index.ts";

interface AdminDoorsOptions extends Omit<AdminOptions, "admit" | "grpc"> {
  /** Undefined until the forwarder has begun to follow the SPIRE agent: no peer from elsewhere is admitted by then. */
  identity(): Identity | undefined;
}

const HANDSHAKE_MS = 5000;
const STOP_GRACE_MS = 200;

/** Of gRPC probes, for all connections together, which are one owner's: kubelet sends one at a time, operators watch a few. */
const PROBE_LIMITS = {
  maxConcurrentCalls: 16,
  calls: { each: 64, others: 128, manager: 0 },
  arrivalBytes: { each: 64 * 1024, others: 128 * 1024, manager: 0 },
};

/**
 * Opens the admin listener.
 * @throws {AdminError}
 */
export async function openAdmin(options: AdminDoorsOptions, undo: UndoStack): Promise<AdminServer> {
  const { health, clock, log } = options;
  const probe = serveStreams({ handlers: [], health: probedHealth(health), limits: PROBE_LIMITS, clock, log });
  const admin = await serveAdmin({
    ...options,
    admit: (stream) => admit(stream, options.identity(), clock),
    grpc: (stream, remote) => probe.accept(stream, remote),
  });
  undo.push("status page", async () => {
    await probe.stop(STOP_GRACE_MS);
    await admin.close();
  });
  return admin;
}

/** For gRPC probes: the services "" and "readiness" serve while nothing blocks, "liveness" while the process answers. */
function probedHealth(health: Health): RpcHealth {
  const probed = new RpcHealth();
  const publish = (isReady: boolean | undefined) => {
    for (const service of ["", "readiness"]) probed.set(service, isReady === true);
  };
  probed.set("liveness", true);
  publish(health.ready.value);
  health.ready.onChange(publish);
  return probed;
}

async function admit(stream: Duplex, identity: Identity | undefined, clock: Clock): Promise<Duplex> {
  const own = identity?.current.value;
  if (!identity || !own) throw new Error("we have no identity yet, so no peer can be admitted");
  const deadline = startDeadline(clock, HANDSHAKE_MS, { what: "TLS handshake of the admin listener" });
  try {
    const { socket, peer } = await acceptTls(stream, identity, deadline.signal, "http/1.1");
    // Refused, it ends with the stream beneath it, which the listener ends.
    if (domainOf(peer.spiffeId) !== trustDomainOf(own.id))
      throw new Error(`${peer.spiffeId} is not of our trust domain ${trustDomainOf(own.id)}`);
    return socket;
  } finally {
    deadline.end();
  }
}

function domainOf(spiffeId: string): string {
  return trustDomainOf(parseSpiffeId(spiffeId));
}
