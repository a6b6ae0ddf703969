// The rules of IsExtendedResourceName (kubernetes, pkg/apis/core/v1/helper): kubelet refuses to register anything else.
const LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const domainForm = new RegExp(`^${LABEL}([.]${LABEL})*$`);
const capabilityForm = /^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/;
/** A DNS name has at most 253 characters, and kubelet puts "requests." before the domain. */
const DOMAIN_MAX_CHARS = 253 - "requests.".length;
const CAPABILITY_MAX_CHARS = 63;

/** The extended resource, and the token name, that one service domain and one capability make together. */
export function resourceName(serviceDomain: string, capability: string): string {
  return `${serviceDomain}/${capability}`;
}

/** Why kubelet would refuse resources of this service domain; undefined when it would not. */
export function serviceDomainProblem(domain: string): string | undefined {
  if (domain.length > DOMAIN_MAX_CHARS) return `has ${domain.length} characters, want at most ${DOMAIN_MAX_CHARS}`;
  if (!domainForm.test(domain)) return "is no DNS name: want lower-case letters, digits, - and . as in worker.domain";
  if (domain.endsWith("kubernetes.io")) return "ends in kubernetes.io, which Kubernetes keeps for itself";
  if (domain.startsWith("requests.")) return 'begins with "requests.", which Kubernetes keeps for quotas';
  return undefined;
}

/** Why kubelet would refuse resources of this capability; undefined when it would not. */
export function capabilityProblem(capability: string): string | undefined {
  if (capability.length > CAPABILITY_MAX_CHARS) {
    return `has ${capability.length} characters, want at most ${CAPABILITY_MAX_CHARS}`;
  }
  if (capabilityForm.test(capability)) return undefined;
  return "cannot be part of a resource name: want letters, digits, - _ and . between letters or digits, as in 10G";
}
