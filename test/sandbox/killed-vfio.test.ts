// A file for each version: they take long enough to run side by side.
import { PodCgroups } from "../../sandbox/pod/pod-cgroups.ts";
import { killInVfio } from "./scenes/killed-vfio.ts";
import { VFIO_NEEDS } from "./scenes/vfio-scene.ts";

killInVfio(1, PodCgroups.make(), VFIO_NEEDS);
