import type { TrustBundles } from "./verify-peer-chain.ts";

/** For the log: how many authorities each trust domain has. */
export function authoritiesOf(bundles: TrustBundles): Readonly<Record<string, number>> {
  return Object.fromEntries([...bundles].map(([domain, authorities]) => [domain, authorities.length]));
}

/** Whether the same authorities are trusted for the same domains, in whatever order they are said. */
export function areSame(one: TrustBundles, other: TrustBundles): boolean {
  const [before, now] = [prints(one), prints(other)];
  return before.size === now.size && [...before].every((print) => now.has(print));
}

function prints(bundles: TrustBundles): ReadonlySet<string> {
  const all = [...bundles].flatMap(([domain, authorities]) =>
    authorities.map(({ x509 }) => `${domain} ${x509.fingerprint256}`),
  );
  return new Set(all);
}
