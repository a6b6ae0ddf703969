// What the way of a link into a client's namespace and back is given.
import type { Netns } from "../kernel/index.ts";
import type { Log } from "../telemetry/index.ts";
import type { AttachedVf } from "./apply-vf.ts";
import type { AttachmentState, HostSide } from "./attachment-state.ts";
import type { DesiredNetdev } from "./desired.ts";
import type { HostLinks } from "./host-links.ts";
import type { OthersNames } from "./restore-name.ts";
import type { VfLink } from "./vf-link.ts";

/** What an attachment needs for its whole life. */
export interface AttachmentParts {
  readonly links: HostLinks;
  /** Stays the caller's, open as long as the attachment is used; undefined when the namespace is known to be dead. */
  readonly client: Netns | undefined;
  readonly state: AttachmentState;
  /** PCI address of the VF whose link it is: no other is ever written to. */
  readonly address: string;
  readonly vf: AttachedVf;
  /** How a link is found that goes and comes back. */
  readonly vfLink: VfLink;
  readonly log: Log;
  /** Called before each step that the state does not yet have; the step waits for it. */
  readonly record?: ((state: AttachmentState) => Promise<void>) | undefined;
  /** Called right before it goes into the client's namespace: from here on the client can have changed it. */
  readonly onLeaving?: (() => void) | undefined;
  readonly othersNames?: OthersNames | undefined;
}

export interface AttachOptions<Attachment> extends Omit<AttachmentParts, "client" | "state"> {
  /** Where it shall be; stays the caller's, open as long as the attachment is used. */
  readonly client: Netns;
  /** Where sysfs has the VF's link, in the host: what it says is verified. */
  readonly ifindex: number;
  readonly desired: DesiredNetdev;
  /** How the host had it, where it has been with a client and is not so again; read otherwise. */
  readonly before?: HostSide | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Gets what an attach that failed could not undo, before the error "left-behind": another `detach` continues with it. */
  readonly keepLeft?: ((attachment: Attachment) => void) | undefined;
}
