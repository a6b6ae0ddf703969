import { create, type MessageShape } from "@bufbuild/protobuf";
import { EmptySchema, timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import {
  type NetworkService,
  type NetworkServiceEndpoint,
  NetworkServiceEndpointRegistry,
  NetworkServiceRegistry,
} from "../../src/gen/registry_pb.ts";
import type { Fd } from "../../src/kernel/index.ts";
import { type Call, RpcError, type RpcHandler, streamHandler, unaryHandler } from "../../src/rpc/index.ts";
import { Feed } from "./feed.ts";
import { checkCallerToken, type Hop } from "./hop.ts";
import { inodeUrlOf, receiveInode, socketUrlOf } from "./passed-files.ts";
import { type EndpointEntry, matchesEndpoint, matchesService, type Registry } from "./registry.ts";
import { extendRegistryPath } from "./registry-path.ts";

export interface RegistryServiceOptions extends Omit<Hop, "name"> {
  readonly registry: Registry;
  /** No endpoint stays longer than this without registering again, in ms. */
  readonly expiryMs: number;
  /** An endpoint that is renewed late is dropped so long after its registration at the earliest. */
  readonly keptMs: number;
}

/** The two registries as an NSMgr serves them to its node. */
export function registryHandlers(options: RegistryServiceOptions): readonly RpcHandler[] {
  const { registry } = options;
  const services = NetworkServiceRegistry.method;
  const endpoints = NetworkServiceEndpointRegistry.method;
  return [
    unaryHandler(services.register, async (service, call) => {
      service.pathIds = await extendPathHeader(options, service.pathIds, call);
      registry.services.put(service.name, service);
      return service;
    }),
    unaryHandler(services.unregister, async (service, call) => {
      await extendPathHeader(options, service.pathIds, call);
      registry.services.remove(service.name);
      return create(EmptySchema);
    }),
    streamHandler(services.find, (query, call) => findServices(registry, query, call)),
    unaryHandler(endpoints.register, (endpoint, call) => registerEndpoint(options, endpoint, call)),
    unaryHandler(endpoints.unregister, async (endpoint, call) => {
      await extendPathHeader(options, endpoint.pathIds, call);
      checkOwner(registry, endpoint.name, call);
      registry.owners.delete(endpoint.name);
      registry.removeEndpoint(endpoint.name);
      return create(EmptySchema);
    }),
    streamHandler(endpoints.find, (query, call) => findEndpoints(registry, query, call)),
  ];
}

/** Checks the caller, writes the path header of the answer and returns the entry's new path ids. */
async function extendPathHeader(options: RegistryServiceOptions, pathIds: string[], call: Call): Promise<string[]> {
  const caller = await checkCallerToken(options, call);
  const header = call.metadata.get("path")?.at(-1); // the last value wins
  if (header === undefined) return pathIds;
  const ownToken = options.actor.token(call.connection.peer?.spiffeId).token;
  const extended = extendRegistryPath(header, pathIds, { callerToken: caller.token, ownToken });
  call.setResponseMetadata("path", extended.header);
  return extended.pathIds;
}

async function registerEndpoint(
  options: RegistryServiceOptions,
  endpoint: NetworkServiceEndpoint,
  call: Call,
): Promise<NetworkServiceEndpoint> {
  if (endpoint.name === "") throw new RpcError("INVALID_ARGUMENT", "an endpoint must have a name");
  const { registry, clock } = options;
  const caller = await checkCallerToken(options, call);
  endpoint.pathIds = await extendPathHeader(options, endpoint.pathIds, call);
  registry.owners.set(endpoint.name, checkOwner(registry, endpoint.name, call));
  const before = registry.endpoints.get(endpoint.name);
  const sentUrl = endpoint.url;
  const socket = await socketOf(sentUrl, before?.socket, call);
  if (socket !== undefined) endpoint.url = socketUrlOf(socket);
  const requested = endpoint.expirationTime ? timestampMs(endpoint.expirationTime) : Number.POSITIVE_INFINITY;
  const expiresMs = Math.min(requested, caller.expiresMs, clock.now() + options.expiryMs);
  endpoint.expirationTime = timestampFromMs(expiresMs);
  endpoint.initialRegistrationTime = before?.endpoint.initialRegistrationTime ?? timestampFromMs(clock.now());
  registry.putEndpoint({ endpoint, socket }, Math.max(expiresMs, clock.now() + options.keptMs));
  return create(NetworkServiceEndpointRegistry.method.register.output, { ...endpoint, url: sentUrl });
}

/** Policy client_allowed (nsm-protocol §4.2). @throws {RpcError} PERMISSION_DENIED. */
function checkOwner(registry: Registry, name: string, call: Call): string {
  const { spiffeId = "" } = call.connection.peer ?? {};
  const owner = registry.owners.get(name) ?? spiffeId;
  if (owner === spiffeId) return owner;
  const problem = "registry: an error occurred during authorization policy check: no sufficient privileges";
  throw new RpcError("PERMISSION_DENIED", problem);
}

/** The passed socket of an inode URL: the one that is held already when it is the same file, for its path to stay the same. */
async function socketOf(url: string, held: Fd | undefined, call: Call): Promise<Fd | undefined> {
  if (!url.startsWith("inode:")) return undefined;
  if (held !== undefined && inodeUrlOf(held.id()) === url) return held;
  return receiveInode(url, call.connection, call.signal);
}

async function* findServices(
  registry: Registry,
  query: MessageShape<typeof NetworkServiceRegistry.method.find.input>,
  call: Call,
): AsyncGenerator<{ networkService: NetworkService; deleted: boolean }> {
  const desired = query.networkService ?? create(NetworkServiceRegistry.method.register.input);
  const feed = new Feed<{ networkService: NetworkService; deleted: boolean }>(call.signal);
  for (const networkService of registry.services.all()) {
    if (matchesService(desired, networkService)) feed.push({ networkService, deleted: false });
  }
  yield* follow(feed, query.watch, () =>
    registry.services.watch(({ entry, deleted }) => {
      if (matchesService(desired, entry)) feed.push({ networkService: entry, deleted });
    }),
  );
}

async function* findEndpoints(
  registry: Registry,
  query: MessageShape<typeof NetworkServiceEndpointRegistry.method.find.input>,
  call: Call,
): AsyncGenerator<{ networkServiceEndpoint: NetworkServiceEndpoint; deleted: boolean }> {
  const desired = query.networkServiceEndpoint ?? create(NetworkServiceEndpointRegistry.method.register.input);
  const feed = new Feed<{ networkServiceEndpoint: NetworkServiceEndpoint; deleted: boolean }>(call.signal);
  const notify = ({ endpoint, socket }: EndpointEntry, deleted: boolean) => {
    if (!matchesEndpoint(desired, endpoint)) return;
    feed.push({ networkServiceEndpoint: deleted ? endpoint : passSocket(endpoint, socket, call), deleted });
  };
  for (const entry of registry.endpoints.all()) notify(entry, false);
  yield* follow(feed, query.watch, () => registry.endpoints.watch(({ entry, deleted }) => notify(entry, deleted)));
}

/** The endpoint as the caller can reach it: its socket as a passed descriptor and an inode URL that names it. */
function passSocket(endpoint: NetworkServiceEndpoint, socket: Fd | undefined, call: Call): NetworkServiceEndpoint {
  if (socket === undefined || call.connection.fds === undefined) return endpoint;
  call.sendFd(socket);
  return create(NetworkServiceEndpointRegistry.method.register.input, {
    ...endpoint,
    url: inodeUrlOf(socket.id()),
  });
}

/** What is there now and, when it is a watch, every change until the caller goes. */
async function* follow<T>(feed: Feed<T>, watch: boolean, subscribe: () => () => void): AsyncGenerator<T> {
  if (!watch) feed.end();
  const stop = watch ? subscribe() : () => {};
  try {
    yield* feed;
  } finally {
    stop();
  }
}
