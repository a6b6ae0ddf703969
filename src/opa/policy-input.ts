import type { PolicyInput } from "../identity/index.ts";

/** The input document of the original for an answer of the registry (RegistryOpaInput and PreparedOpaInput of its SDK). */
export function inputDocument({ index, segments, peer, resource }: PolicyInput): Readonly<Record<string, unknown>> {
  return {
    resource_id: resource?.id ?? "",
    resource_name: resource?.name ?? "",
    resource_path_ids_map: Object.fromEntries(resource?.pathIds ?? []),
    path_segments: segments.map(({ token }) => ({ token })),
    index,
    auth_info: { certificate: peer?.certificatePem ?? "" },
  };
}
