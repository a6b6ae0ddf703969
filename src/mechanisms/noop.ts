import type { Attachment, MechanismDriver, WantedNoop } from "../nsm/index.ts";

/** The connection passes through: this node gives it nothing. The role of the forwarder on the endpoint's node. */
export const noopDriver: MechanismDriver<WantedNoop> = {
  open: async () => nothing,
  adopt: () => nothing,
};

const nothing: Attachment = {
  parameters: {},
  async prepare() {},
  canServe: (wanted) => wanted.type === "NOOP",
  async apply() {},
  isInForce: async () => true,
  async receiveFiles() {},
  async release() {},
  close() {},
};
