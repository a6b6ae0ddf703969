// The one record of each VF: who may have it, who has it, what is wrong with it, and which tokens it has. Device lists, metrics
// and the status page are views of it. Pure: it reads no file and changes no device.
// Start reading at inventory.ts; vf-condition.ts is what can be so of a VF, token-assignments.ts which token has which VF.
export { BEING_CLEANED, BEING_RESTORED } from "./choose.ts";
export { Inventory } from "./inventory.ts";
export { InventoryError, type InventoryFault } from "./inventory-fault.ts";
export { type DeviceView, type TakeRequest, type VfRecord, type VfState, vfStates } from "./inventory-form.ts";
export { type Offer, offerOf } from "./offer.ts";
export type { PreferenceRequest } from "./preferred-allocation.ts";
export { isTokenId, shortToken, shortTokens, tokenId } from "./token-id.ts";
export {
  type BeforeClient,
  type ConditionEffect,
  describeCondition,
  effectOf,
  isBeingRestored,
  labelOf,
  type VfCondition,
  type VfConditionCode,
  type VfConditionOf,
  vfConditionCodes,
} from "./vf-condition.ts";
export { conditionOf } from "./vf-record.ts";
