import { kernelStories } from "./scenes/kernel-stories.ts";
import { tellStories } from "./scenes/story.ts";

tellStories("a KERNEL connection", {}, kernelStories);
