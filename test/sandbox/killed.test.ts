// On real files: the story that has a bit of everything. All stories run in killed-unsynced.test.ts.
import { killInKernel } from "./scenes/killed-kernel.ts";

killInKernel("a forwarder that is killed", (title) => title.includes("a change"));
