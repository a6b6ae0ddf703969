/**
 * What of this machine the process waits for now, by kind: sockets, timers, files. A simulation waits for none: while it did, its own time
 * would pass, and its order would be another one each time.
 */
export class RealWork {
  readonly seen = new Set<string>();
  readonly #before = counts();

  /** Kinds of which there are more than at the start. A turn of the event loop is what the virtual clock takes. */
  observe(): void {
    for (const [kind, count] of counts()) {
      if (kind !== "Immediate" && count > (this.#before.get(kind) ?? 0)) this.seen.add(kind);
    }
  }
}

function counts(): ReadonlyMap<string, number> {
  const all = new Map<string, number>();
  for (const kind of process.getActiveResourcesInfo()) all.set(kind, (all.get(kind) ?? 0) + 1);
  return all;
}
