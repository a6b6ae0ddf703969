// What operators and probes see over HTTP: the status page, its data, metrics, health and, if enabled, profiles; read only.
// Knows nothing of VFs, clients or certificates but their views (node-view.ts): the composition gives
// the views, and says who may come from outside the node. Start reading at serve.ts.

export { AdminError, isLoopback } from "./loopback.ts";
export { serveProfiles } from "./profiles.ts";
export { type AdminOptions, type AdminServer, serveAdmin } from "./serve.ts";
export {
  type ConnectionView,
  type NodeView,
  type NodeViewSource,
  type PfView,
  problemCounts,
  problemsOf,
  type ResourceView,
  type VfView,
  vfStates,
} from "./view-form.ts";
