import { crowdRounds } from "../topologies.ts";
import { contracts } from "./contracts.ts";
import { crashStories } from "./crash-stories.ts";
import { crowdStories } from "./crowd-stories.ts";
import { kernelStories } from "./kernel-stories.ts";
import { noIommuStories, sharedGroupStories } from "./refusal-stories.ts";
import type { Scenario } from "./stage.ts";
import { troubleStories } from "./trouble-stories.ts";
import { vfioStories } from "./vfio-stories.ts";

/** What lab/topologies.ts names. */
export const scenarios: Readonly<Record<string, Scenario>> = {
  contracts,
  kernel: (stage) => stage.stories(kernelStories),
  crashes: (stage) => stage.stories(crashStories),
  trouble: (stage) => stage.stories(troubleStories),
  vfio: (stage) => stage.stories(vfioStories),
  "shared-groups": (stage) => stage.stories(sharedGroupStories),
  "no-iommu": (stage) => stage.stories(noIommuStories),
  crowd: (stage) => stage.stories(crowdStories(crowdRounds[stage.plan.kernel])),
};
