/** What one message of a method may be. Both are checked before memory is taken for it. */
export interface MessageLimit {
  /** Its bytes on the wire. */
  readonly bytes: number;
  /** Its fields, entries of maps and items of lists, at every depth: decoded, one of two bytes takes some hundred. */
  readonly elements: number;
}

/**
 * Where nothing else is said. A Request through five hops with tokens of 1.5 KB, 20 labels and 100 excluded prefixes
 * has 12 KB and 300 elements; decoded, the most that this lets through takes some 3 MB.
 */
export const defaultMessageLimit: MessageLimit = { bytes: 256 * 1024, elements: 8192 };

/** For what names one thing: a selector, an entry of a registry, a registration. */
export const smallMessageLimit: MessageLimit = { bytes: 64 * 1024, elements: 2048 };
