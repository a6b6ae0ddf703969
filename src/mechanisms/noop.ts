import type { Attachment, DesiredNoop, MechanismDriver } from "../nsm/index.ts";

/** The connection passes through: this node gives it nothing. The role of the forwarder on the endpoint's node. */
export const noopDriver: MechanismDriver<DesiredNoop> = {
  open: async () => nothing,
  adopt: () => nothing,
};

const nothing: Attachment = {
  parameters: {},
  async prepare() {},
  canServe: (desired) => desired.type === "NOOP",
  async apply() {},
  isInForce: async () => true,
  async receiveFiles() {},
  async release() {},
  close() {},
};
