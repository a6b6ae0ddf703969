// What a start makes of the journal that an earlier process left, and what is mended while we run: journal, book and node are
// made to agree, and what a running client has is not touched (docs/decisions/013 and 016). Serves nobody.
// Start reading at recover.ts and repairs.ts; reconcile.ts is the loop.
export { watchLateFunctions } from "./late-functions.ts";
export { startReconciler } from "./reconcile.ts";
export { logRecovered, type Recovered, recover } from "./recover.ts";
export { recoverVfio } from "./recover-vfio.ts";
