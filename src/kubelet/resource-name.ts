import { createHash } from "node:crypto";

// IsExtendedResourceName (kubernetes, pkg/apis/core/v1/helper): kubelet refuses to register anything else.
const domainForm = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const nameForm = /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/;
/** A DNS name has at most 253 characters, and kubelet puts "requests." before it. */
const LONGEST_DOMAIN = 253 - "requests.".length;

/** Why kubelet would not register this resource; undefined when it would. */
export function resourceNameProblem(resource: string): string | undefined {
  const [domain = "", name, ...more] = resource.split("/");
  if (name === undefined || more.length > 0) return "want serviceDomain/capability, with one slash";
  if (domain.length > LONGEST_DOMAIN || !domainForm.test(domain)) return `"${domain}" is no DNS name in lower case`;
  if (domain.endsWith("kubernetes.io")) return "Kubernetes keeps kubernetes.io for itself";
  if (domain.startsWith("requests.")) return 'Kubernetes keeps "requests." for quotas';
  if (!nameForm.test(name)) return `"${name}" is no name: want letters, digits, - _ and . between letters or digits`;
  return undefined;
}

/**
 * Name of the plugin's socket: the same at every start, so that a crash leaves no litter behind, and short enough for a
 * socket path in any reasonable folder.
 */
export function socketName(resource: string): string {
  const readable = resource.replace(/[^A-Za-z0-9.-]/g, "_").slice(-24);
  const digest = createHash("sha256").update(resource).digest("hex").slice(0, 12);
  return `nsm-sriov-${readable}-${digest}.sock`;
}
