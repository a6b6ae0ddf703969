import type { Target } from "../target.ts";
import { accessTargets } from "./access.ts";
import { adminTargets } from "./admin.ts";
import { fileTargets } from "./files.ts";
import { identityTargets } from "./identity.ts";
import { journalTargets } from "./journal.ts";
import { logTargets } from "./log.ts";
import { messageTargets } from "./messages.ts";
import { netlinkTargets } from "./netlink.ts";
import { textTargets } from "./texts.ts";
import { wireTargets } from "./wire.ts";

/** Every target, the same at each call. */
export async function loadTargets(): Promise<readonly Target[]> {
  return [
    ...messageTargets,
    ...wireTargets,
    ...identityTargets,
    ...textTargets,
    ...netlinkTargets,
    ...accessTargets,
    ...journalTargets,
    ...fileTargets,
    ...logTargets,
    ...(await adminTargets()),
  ];
}
