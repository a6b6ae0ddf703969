import { kernelStories } from "./kernel-stories.ts";
import { tellStories } from "./story.ts";

tellStories("a KERNEL connection", {}, kernelStories);
