import { bodyOf, type DerElement, refuse } from "./der.ts";

/** A name in a certificate, or one that constrains names: GeneralName of RFC 5280, 4.2.1.6. */
export interface GeneralName {
  /** In DER. */
  readonly tag: NameTag;
  /** An address is as long as addresses are, or twice that with its mask; the others are text, byte for byte. */
  readonly value: Buffer;
}

/** The kinds that Go's crypto/x509 reads. */
export const NAME_TAG = { mail: 0x81, dns: 0x82, uri: 0x86, address: 0x87 } as const;
type NameTag = (typeof NAME_TAG)[keyof typeof NAME_TAG];

const knownTags: ReadonlySet<number> = new Set(Object.values(NAME_TAG));

/** The name; undefined when its kind is unknown. What it says is not read. */
export function toGeneralName(element: DerElement): GeneralName | undefined {
  return knownTags.has(element.tag) ? { tag: element.tag as NameTag, value: bodyOf(element, element.tag) } : undefined;
}

/**
 * A name of a certificate's own.
 * @throws {IdentityError} kind "bad-certificate" when it is malformed: Go's crypto/x509 reads no such certificate
 */
export function requireName({ tag, value }: GeneralName): void {
  if (tag === NAME_TAG.address) {
    if (value.length !== 4 && value.length !== 16) throw refuse("an address in it has an odd length");
  } else if (value.some((byte) => byte > 0x7f)) throw refuse("a name in it is not of ASCII");
  else if (tag === NAME_TAG.uri) requireUri(value.toString("latin1"));
}

/** The host of a URI in lower case, without its port; undefined when it has none that names a domain. */
export function uriHost(uri: string): string | undefined {
  const host = authorityOf(uri)?.replace(/:\d*$/, "").toLowerCase();
  return host === undefined || host === "" || isAddress(host) || !isDomain(host) ? undefined : host;
}

export interface Mailbox {
  /** Case counts. */
  readonly local: string;
  readonly domain: string;
}

/** Parts of a mailbox (RFC 2821, 4.1.2), the domain in lower case. Quotes are not read: no SVID has them. */
export function parseMailbox(text: string): Mailbox | undefined {
  const [, local, domain] = /^([\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*)@(.+)$/.exec(text) ?? [];
  if (local === undefined || domain === undefined || !isDomain(domain)) return undefined;
  return { local, domain: domain.toLowerCase() };
}

/** Labels of 1 to 63 printable characters, 253 in all. */
export function isDomain(name: string): boolean {
  return name.length <= 253 && name.split(".").every((label) => /^[!-~]{1,63}$/.test(label));
}

/** Whether it is where a domain could be, and is an address of version 4 or 6. */
export function isAddress(host: string): boolean {
  return /^(\d{1,3}\.){3}\d{1,3}$|:|^\[/.test(host);
}

/** RFC 5280 wants a URI absolute; its parts as RFC 3986 has them. */
function requireUri(uri: string): void {
  const isWritten = /^[A-Za-z][A-Za-z0-9+.-]*:[ -~]*$/.test(uri) && !/%(?![0-9A-Fa-f]{2})/.test(uri);
  const authority = authorityOf(uri);
  const isHost = (text: string) => isDomain(text) && /^(\[[0-9A-Fa-f:.]+\](:\d*)?|[^[\]<>"]+)$/.test(text);
  const isFit = !authority || isHost(authority);
  if (!isWritten || !isFit) throw refuse("a URI in it is malformed");
}

/** Host and port of a URI; undefined when it has no such part. */
function authorityOf(uri: string): string | undefined {
  return /^[A-Za-z][A-Za-z0-9+.-]*:\/\/(?:[^/?#]*@)?([^/?#]*)/.exec(uri)?.[1];
}
