// What makes journal, inventory and node agree, at the start and while we run; what a running client has is not touched
// (docs/decisions/013, 016 and 041). Serves no peer; kubelet's part is which pods have our devices.
// Start reading at decide.ts: what follows from what is a table. reconcile.ts is the loop, actions.ts does what was decided.
export { Reconciler, type ReconcilerOptions } from "./reconcile.ts";
