import type { Attachment, MechanismDriver } from "./mechanism.ts";
import type { WantedNoop } from "./requested-mechanism.ts";

/** The connection passes through: this node gives it nothing. The role of the forwarder on the endpoint's node. */
export const noopDriver: MechanismDriver<WantedNoop> = {
  open: async () => nothing,
  adopt: () => nothing,
};

const nothing: Attachment = {
  parameters: {},
  async prepare() {},
  canBecome: (wanted) => wanted.type === "NOOP",
  async apply() {},
  stands: async () => true,
  async meet() {},
  async release() {},
  letGo() {},
};
