import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { NetworkServiceEndpoint } from "../../gen/registry_pb.ts";

/** What an entry takes beside its texts, and each label; about. */
const ENTRY_BYTES = 256;
const LABEL_BYTES = 64;

/** What a search uses of an entry of the registry: the rest, of any peer's size, is let go as it comes. */
export interface FoundEndpoint {
  readonly name: string;
  readonly url: string;
  /**
   * The SPIFFE ID that registered it, as the registry noted it at the first hop. One that plays a manager can claim several.
   * All endpoints of which none is noted count as one registrant's.
   */
  readonly registrant: string;
  /** Those for the requested service. */
  readonly labels: Readonly<Record<string, string>>;
  /** Whether it serves the requested service. */
  readonly isServing: boolean;
  readonly expiresAtMs: number | undefined;
  /** What all this takes, about. */
  readonly bytes: number;
}

/** The entry, as a search for this service sees it. */
export function foundEndpoint(entry: NetworkServiceEndpoint, service: string): FoundEndpoint {
  const { name, url, expirationTime, networkServiceLabels } = entry;
  const [registrant = ""] = entry.pathIds;
  const labels = (Object.hasOwn(networkServiceLabels, service) && networkServiceLabels[service]?.labels) || {};
  const texts = [name, url, registrant, ...Object.entries(labels).flat()];
  const bytes = texts.reduce((sum, text) => sum + text.length, ENTRY_BYTES + LABEL_BYTES * Object.keys(labels).length);
  const expiresAtMs = expirationTime && timestampMs(expirationTime);
  return { name, url, registrant, labels, isServing: serves(entry, service), expiresAtMs, bytes };
}

/** An endpoint that does not list its services is taken at its name; a domain behind `@` is not part of the name. */
function serves({ networkServiceNames: names }: NetworkServiceEndpoint, service: string): boolean {
  const wanted = withoutDomain(service);
  return service === "" || names.length === 0 || names.some((name) => withoutDomain(name) === wanted);
}

function withoutDomain(name: string): string {
  return name.split("@", 1)[0] ?? "";
}
