import { crowdRounds, udevRounds } from "../topologies.ts";
import { contracts } from "./contracts.ts";
import { crashes } from "./crash-stories.ts";
import { crowd } from "./crowd-stories.ts";
import { kernelStories } from "./kernel-stories.ts";
import { powerCuts } from "./power-stories.ts";
import { noIommuStories, sharedGroups } from "./refusal-stories.ts";
import type { Scenario } from "./stage.ts";
import { tenantStories } from "./tenant-stories.ts";
import { troubleStories } from "./trouble-stories.ts";
import { udev } from "./udev-stories.ts";
import { vfioStories } from "./vfio-stories.ts";

/** What lab/topologies.ts names. */
export const scenarios: Readonly<Record<string, Scenario>> = {
  contracts,
  kernel: (stage) => stage.stories(kernelStories),
  tenants: (stage) => stage.stories(tenantStories),
  crashes,
  trouble: (stage) => stage.stories(troubleStories),
  vfio: (stage) => stage.stories(vfioStories),
  udev: (stage) => udev(stage, udevRounds),
  "shared-groups": sharedGroups,
  "no-iommu": (stage) => stage.stories(noIommuStories),
  "power-cuts": powerCuts,
  crowd: (stage) => crowd(stage, crowdRounds[stage.plan.kernel]),
};
