// Names that VFs are to have again and that other links of the host have by now. The kernel's news say when such a link may have given one up.
import type { Rtnl } from "../kernel/index.ts";
import type { HostLinks } from "../netdev/index.ts";

export class TakenNames {
  readonly #links: Pick<HostLinks, "openRtnl" | "netns">;
  readonly #onNews: () => void;
  /** Indexes of links that had such a name at the last query. */
  readonly #holders = new Set<number>();
  #listening: { readonly rtnl: Rtnl; readonly stop: () => void } | undefined;

  /** Listens from the first query on: most nodes never have one. */
  constructor(links: Pick<HostLinks, "openRtnl" | "netns">, onNews: () => void) {
    this.#links = links;
    this.#onNews = onNews;
  }

  /** Whether no other link of the host than that one has the name. Where one has it, there will be news when it has it no more. */
  async isFree(name: string, ifindex: number): Promise<boolean> {
    const { rtnl } = this.#listen();
    for (;;) {
      const holder = (await rtnl.linkByName(name))?.index;
      if (holder === undefined || holder === ifindex) return true;
      // Queried again after it is listened to: what it did before was no news.
      if (this.#holders.has(holder)) return false;
      this.#holders.add(holder);
    }
  }

  close(): void {
    this.#listening?.stop();
    this.#listening?.rtnl.close();
    this.#listening = undefined;
  }

  #listen() {
    if (this.#listening) return this.#listening;
    const rtnl = this.#links.openRtnl(this.#links.netns);
    try {
      const stop = rtnl.watch(["link"], (event) => {
        const isHolders = "link" in event && this.#holders.delete(event.link.index);
        if (isHolders || event.kind === "lost") this.#onNews();
      });
      this.#listening = { rtnl, stop };
      return this.#listening;
    } catch (error) {
      rtnl.close();
      throw error;
    }
  }
}
