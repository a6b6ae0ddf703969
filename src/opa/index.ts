// Which policies the registry's answers must pass: the built-in ones that NSM_REGISTRY_CLIENT_POLICIES selects, and compiled ones of
// the operator. Knows where policies come from and how a compiled one is run; what the built-in ones say is identity's, and whom
// they judge is nsm's. Start reading at registry-policies.ts.
export { registryPolicies } from "./registry-policies.ts";
