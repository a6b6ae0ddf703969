// The node is followed before NSM is served: what that means for a connection waits for the service.
import type { JournalEntry } from "../nsm/index.ts";
import type { NsmServer } from "./nsm-server.ts";

type Service = Pick<NsmServer, "adopt" | "endConnection">;

/** The service as those see it who are there before it: in the order in which it was called. */
export class ServiceToCome {
  readonly #served = Promise.withResolvers<Service>();
  #isClosed = false;

  /** It serves from now on. */
  serve(service: Service): void {
    this.#served.resolve(service);
  }

  /** It stops: connections stay as they are. */
  close(): void {
    this.#isClosed = true;
  }

  readonly adopt = (entry: JournalEntry): void => {
    void this.#served.promise.then((service) => {
      if (!this.#isClosed) service.adopt(entry);
    });
  };

  readonly endConnection = async (connectionId: string): Promise<void> => {
    const service = await this.#served.promise;
    if (!this.#isClosed) await service.endConnection(connectionId);
  };
}
