import { kernelStories } from "./scenes/kernel-stories.ts";
import { runStories } from "./scenes/story.ts";

runStories("a KERNEL connection", {}, kernelStories);
