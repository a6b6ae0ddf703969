// The registry and the endpoints around this module's stories, for tests only.
import { clone, create, type DescMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import {
  type Connection,
  type ConnectionEvent,
  ConnectionEventSchema,
  ConnectionSchema,
  PathSegmentSchema,
} from "../../gen/connection_pb.ts";
import { type NetworkServiceRequest, NetworkServiceRequestSchema } from "../../gen/networkservice_pb.ts";
import type { NetworkServiceEndpointSchema, NetworkServiceSchema } from "../../gen/registry_pb.ts";
import { NetworkServiceEndpointResponseSchema, NetworkServiceResponseSchema } from "../../gen/registry_pb.ts";
import { type Connection as PeerConnection, type PeerIdentity, RpcError, type RpcStream } from "../../rpc/index.ts";
import type { Caller } from "../peers.ts";
import { connectionWith, PaperFds, peerNamed } from "./fakes.ts";

type Reply = (request: NetworkServiceRequest) => Connection | Promise<Connection>;

/** The registry and the endpoints behind our client. */
export class Outside implements Caller {
  services: MessageInitShape<typeof NetworkServiceSchema>[] = [{ name: "ns1", payload: "ETHERNET" }];
  endpoints: MessageInitShape<typeof NetworkServiceEndpointSchema>[] = [
    { name: "nse-1", networkServiceNames: ["ns1"], url: "tcp://nse-1:1" },
  ];
  /** By target. */
  readonly replies = new Map<string, Reply>([["tcp://nse-1:1", endpointReply("nse-1")]]);
  readonly requests: NetworkServiceRequest[] = [];
  readonly closes: { readonly target: string; readonly connection: Connection }[] = [];
  /** What endpoints have agreed to and have not had a Close of, as `whoServes` writes it, with the client whose it is. */
  readonly agreed = new Map<string, string>();
  readonly finds: string[] = [];
  readonly watches: PaperStream<ConnectionEvent>[] = [];
  readonly fds = new PaperFds();
  closeFailure: Error | undefined;

  async call<I extends DescMessage, O extends DescMessage>(
    target: string,
    method: { readonly name: string; readonly input: I; readonly output: O },
    request: MessageInitShape<I>,
    options: { readonly signal?: AbortSignal; readonly owner?: string | undefined } = {},
  ) {
    await Promise.resolve();
    options.signal?.throwIfAborted();
    const connection = connectionWith(peerNamed("endpoint"));
    if (method.name === "Close") {
      const closed = create(ConnectionSchema, request as never);
      this.closes.push({ target, connection: closed });
      this.agreed.delete(whoServes(target, closed));
      if (this.closeFailure) throw this.closeFailure;
      return { response: create(method.output), metadata: new Map(), connection };
    }
    const message = create(NetworkServiceRequestSchema, request as never);
    this.requests.push(clone(NetworkServiceRequestSchema, message));
    const reply = this.replies.get(target);
    if (!reply) throw new RpcError("UNAVAILABLE", `failed to dial ${target}`);
    const response = (await reply(clone(NetworkServiceRequestSchema, message))) as unknown as MessageShape<O>;
    if (message.connection) this.#agree(target, message.connection);
    return { response, metadata: new Map(), connection };
  }

  /** An endpoint that finds its own segment continues: it is the client's connection, whatever id the hop before has given it since. */
  #agree(target: string, connection: Connection): void {
    const { path, networkServiceEndpointName: name } = connection;
    const client = JSON.stringify([path?.pathSegments[0]?.id, name, target]);
    if (path?.pathSegments[path.index + 1]) {
      for (const [key, whose] of this.agreed) if (whose === client) this.agreed.delete(key);
    }
    this.agreed.set(whoServes(target, connection), client);
  }

  stream<O extends DescMessage>(
    _target: string,
    method: { readonly name: string; readonly parent: { readonly typeName: string }; readonly output: O },
  ): RpcStream<MessageShape<O>> {
    const stream = new PaperStream<unknown>({ peer: peerNamed("nsmgr-a"), fds: this.fds });
    if (method.name === "Find") {
      this.finds.push(method.parent.typeName);
      const isServices = method.parent.typeName === "registry.NetworkServiceRegistry";
      if (isServices) {
        for (const networkService of this.services)
          stream.push(create(NetworkServiceResponseSchema, { networkService }));
      } else {
        for (const networkServiceEndpoint of this.endpoints) {
          const { url = "" } = networkServiceEndpoint;
          if (this.fds.sent.has(url)) this.fds.kept.add(url);
          stream.push(create(NetworkServiceEndpointResponseSchema, { networkServiceEndpoint }));
        }
      }
      stream.end();
    } else {
      stream.push(create(ConnectionEventSchema, {}));
      this.watches.push(stream as unknown as PaperStream<ConnectionEvent>);
    }
    return stream as unknown as RpcStream<MessageShape<O>>;
  }
}

/** One connection at one endpoint. */
export function whoServes(target: string, { id, networkServiceEndpointName }: Connection): string {
  return `${id} at ${networkServiceEndpointName}, ${target}`;
}

/** An endpoint that agrees and gives addresses. */
export function endpointReply(name: string, change: (connection: Connection) => void = () => {}): Reply {
  return (request) => {
    const connection = request.connection ?? create(ConnectionSchema);
    const { path } = connection;
    if (!path) throw new Error("The forwarder sent no path");
    path.pathSegments[path.index + 1] = create(PathSegmentSchema, { name, id: "e1", token: "e>f@1" });
    connection.mechanism = request.mechanismPreferences[0] ?? connection.mechanism;
    connection.context = create(ConnectionSchema, {
      context: { ipContext: { srcIpAddrs: ["10.0.0.1/32"], dstIpAddrs: ["10.0.0.2/32"] } },
    }).context as NonNullable<Connection["context"]>;
    change(connection);
    return connection;
  };
}

/** A stream that a test feeds. */
export class PaperStream<T> implements Pick<RpcStream<T>, "connection" | "cancel"> {
  readonly connection: Promise<PeerConnection>;
  isCancelled = false;
  #items: T[] = [];
  #end: { readonly error?: unknown } | undefined;
  #wake: () => void = () => {};

  constructor({ peer, fds }: { readonly peer: PeerIdentity; readonly fds: PaperFds | undefined }) {
    this.connection = Promise.resolve(connectionWith(peer, { fds }));
  }

  push(item: T): void {
    this.#items.push(item);
    this.#wake();
  }

  end(error?: unknown): void {
    this.#end = error === undefined ? {} : { error };
    this.#wake();
  }

  /** Nothing more can come. */
  get isOver(): boolean {
    return this.#end !== undefined;
  }

  cancel(): void {
    this.isCancelled = true;
    this.end(new RpcError("CANCELLED", "the call was cancelled"));
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      const item = this.#items.shift();
      if (item !== undefined) yield item;
      else if (this.#end?.error) throw this.#end.error;
      else if (this.#end) return;
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }
}
