// The attacks, and what each may take of the process. What an attacker does is in attacker/, by the same name.
import type { Way } from "./attacker/target.ts";

export interface Attack {
  /** The attacker's name. */
  readonly name: string;
  /** What it does, as a sentence's end: "a peer …". */
  readonly says: string;
  readonly ways: readonly Way[];
  /** How long it lasts; some seconds by default. */
  readonly seconds?: number;
  /** SPIFFE IDs that it has. */
  readonly identities?: number;
  /** Another pod has a connection meanwhile, and the attacker knows its path. It must be what it was in the end. */
  readonly knowsAPath?: boolean;
  /** It has a pod whose namespace is crowded (crowded-pod.ts), and which is served as an innocent is: an honest router has as many routes. */
  readonly crowdsANamespace?: boolean;
  /** It is after descriptors: played with few of them, too. */
  readonly takesFiles?: boolean;
  /** It is after memory: played under each limit. */
  readonly takesMemory?: boolean;
  /** Descriptors that the process may have more meanwhile; what `play.ts` allows any attack by default. */
  readonly moreFds?: number;
  /** What no try of an innocent may end in, though the next one is served. */
  readonly mayNotCause?: RegExp;
  /** Problems that it makes today, and no others. Who mends one removes it here. */
  readonly knownProblem?: RegExp;
}

const DIRECT = ["direct"] as const;
const BOTH = ["direct", "manager"] as const;

export const attacks: readonly Attack[] = [
  // What the machine itself does to an innocent's time.
  { name: "nothing", says: "does nothing", ways: DIRECT },
  { name: "computing", says: "computes on one processor", ways: DIRECT },
  // Without an identity.
  { name: "deadDescriptors", says: "passes descriptors that cannot be read", ways: DIRECT },
  { name: "descriptorFlood", says: "passes 253 descriptors a message", ways: DIRECT, takesFiles: true },
  { name: "silentFlood", says: "connects 500 times a second and says nothing", ways: DIRECT },
  {
    name: "firstByteFlood",
    says: "connects 500 times a second and says the first byte of TLS",
    ways: DIRECT,
    takesFiles: true,
  },
  {
    name: "helloFlood",
    says: "connects 500 times a second and says a whole ClientHello",
    ways: DIRECT,
    mayNotCause: /ECONNRESET|EPIPE|closed the connection/,
    takesMemory: true,
  },
  { name: "slowHandshakes", says: "begins 256 handshakes byte by byte", ways: DIRECT },
  { name: "dearChains", says: "shows chains of P-521 that vouch for each other", ways: DIRECT },
  { name: "idleAdmin", says: "holds 100 idle HTTP/2 connections to the port of the page", ways: DIRECT },
  { name: "adminBombs", says: "sends probes of 4 MB of unknown fields to the port of the page", ways: DIRECT },
  // With SVIDs of its own.
  {
    name: "heldDescriptors",
    says: "passes 256 descriptors over each of its connections",
    ways: DIRECT,
    takesMemory: true,
  },
  { name: "idleConnections", says: "holds 1,100 idle connections of one SVID", ways: DIRECT },
  {
    name: "idleConnections",
    says: "holds 1,100 idle connections of 64 SVIDs",
    takesMemory: true,
    ways: DIRECT,
    seconds: 5,
    identities: 64,
  },
  { name: "largeElementBombs", says: "sends Requests of 4 MB of empty elements", ways: DIRECT },
  {
    name: "elementBombs",
    says: "sends Requests of 256 KB of empty elements",
    ways: BOTH,
    identities: 4,
    takesMemory: true,
  },
  {
    name: "allowedElements",
    says: "sends Requests of as many elements as are allowed",
    ways: BOTH,
    identities: 4,
    takesMemory: true,
  },
  { name: "unknownFields", says: "sends Requests of unknown fields", ways: BOTH, identities: 4 },
  { name: "deepGroups", says: "sends groups in groups", ways: DIRECT },
  {
    name: "largeConnections",
    says: "makes NOOP connections as large as they may be",
    ways: BOTH,
    identities: 12,
    takesMemory: true,
  },
  {
    name: "manyConnections",
    says: "makes as many NOOP connections as it may",
    ways: BOTH,
    identities: 12,
  },
  {
    name: "journalFlood",
    says: "changes a NOOP connection with each Request",
    ways: BOTH,
    identities: 2,
  },
  { name: "inventedTokens", says: "sends Requests with invented tokens", ways: BOTH },
  { name: "failingCalls", says: "has a thousand failing Requests at once", ways: BOTH },
  { name: "longTexts", says: "sends failing Requests with long texts", ways: BOTH, identities: 2 },
  { name: "foreignCloses", says: "closes what is not there", ways: BOTH },
  {
    name: "foreignConnection",
    says: "closes, changes and reselects the connection of another pod, whose path it knows",
    ways: BOTH,
    knowsAPath: true,
  },
  { name: "rapidReset", says: "gives Requests up as soon as they are begun", ways: BOTH },
  { name: "frameFlood", says: "sends PING and SETTINGS without end", ways: DIRECT },
  { name: "grpcJsChecks", says: "checks the health without end, by grpc-js", ways: DIRECT },
  {
    name: "halfMessages",
    says: "sends Requests whose last byte never comes, by 8 SVIDs",
    ways: DIRECT,
    identities: 8,
    takesMemory: true,
  },
  {
    name: "healthWatches",
    says: "begins 1,024 watches of the health on each connection, whatever is announced, by 8 SVIDs",
    ways: DIRECT,
    identities: 8,
    takesMemory: true,
  },
  {
    name: "unreadMonitors",
    says: "opens monitor streams and never reads, by 4 SVIDs",
    ways: DIRECT,
    identities: 4,
    takesMemory: true,
  },
  // By what is in its own namespace.
  {
    name: "crowdedNamespace",
    says: "has 200,000 routes in its namespace, and thousands of neighbours on its interface",
    ways: ["manager"],
    crowdsANamespace: true,
  },
  // As endpoints.
  { name: "updateStorm", says: "reports changes without end, as an endpoint", ways: BOTH },
  {
    name: "muteEndpoint",
    says: "has 200 Requests at an endpoint of its own that never answers",
    ways: BOTH,
  },
  {
    name: "hangingEndpoints",
    says: "names 500 endpoints of its own that take a connection and say nothing",
    ways: BOTH,
    takesFiles: true,
    // Those that are dialled for one owner (src/rpc/rpc-limits.ts), and its calls' connections.
    moreFds: 160,
  },
  {
    name: "largeMuteRequests",
    says: "has Requests as large as they may be wait at such an endpoint, and others behind them",
    ways: DIRECT,
    seconds: 4,
    identities: 4,
    takesMemory: true,
  },
  {
    name: "bogusEndpoints",
    says: "registers endpoints of the innocents' service that never answer",
    ways: DIRECT,
    mayNotCause: /select endpoint|took longer than/,
    seconds: 6,
  },
];
