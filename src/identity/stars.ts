export interface Stars {
  readonly isStar: (part: string) => boolean;
  readonly fits: (part: string, given: string) => boolean;
}

/**
 * Whether the parts, of which stars match any number of what is given, are all that is given. Each star takes as little as will do, and
 * more only when what follows does not fit: it compares never more often than parts times given.
 */
export function matchesStars(parts: readonly string[], given: readonly string[], { isStar, fits }: Stars): boolean {
  let [part, at] = [0, 0];
  let star: { readonly part: number; at: number } | undefined;
  while (at < given.length) {
    const [now, one] = [parts[part], given[at] ?? ""];
    if (now !== undefined && isStar(now)) {
      star = { part, at };
      part += 1;
    } else if (now !== undefined && fits(now, one)) {
      part += 1;
      at += 1;
    } else if (star) {
      star.at += 1;
      [part, at] = [star.part + 1, star.at];
    } else {
      return false;
    }
  }
  return parts.slice(part).every(isStar);
}
