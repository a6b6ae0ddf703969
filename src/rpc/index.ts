// gRPC as server and client: methods, limits, deadlines, what each owner may have, statuses. What carries calls is a Transport
// (transport.ts); http2/ is the real one: unix sockets and TCP, SPIFFE mutual TLS, descriptors that travel beneath it.
// Knows nothing of what the messages mean, of tokens or of trust: who may talk is decided by the TlsIdentity that is handed in.
// Start reading at server.ts and client.ts.
export { type Answer, type CallOptions, type ClientOptions, RpcClient } from "./client.ts";
export type { Connection, PeerIdentity, TlsCredentials, TlsIdentity } from "./connection.ts";
export { copyMessage } from "./copy-message.ts";
export {
  type Call,
  encodedStreamHandler,
  encodeMessage,
  type RpcHandler,
  streamHandler,
  unaryHandler,
} from "./handler.ts";
export { RpcHealth } from "./health.ts";
export { acceptTls, checkTls, type Protocol } from "./http2/tls.ts";
export { defaultMessageLimit, type MessageLimit, smallMessageLimit } from "./message-limits.ts";
export type { OwnedConnection } from "./owned-connections.ts";
export { LIMIT_KINDS, type LimitKind, PeerLimits } from "./peer-limits.ts";
export type { RateLimits } from "./rate.ts";
export { defaultLimits, type RpcLimits } from "./rpc-limits.ts";
export { RpcStream } from "./rpc-stream.ts";
export { type RpcServer, serveRpc } from "./server.ts";
export type { ShareLimits } from "./shares.ts";
export { DialRefused, NotBegun, RpcError, type Status } from "./status.ts";
export { serveStreams } from "./stream-server.ts";
export { parseTarget } from "./target.ts";
export type { ServerTls, Transport } from "./transport.ts";
