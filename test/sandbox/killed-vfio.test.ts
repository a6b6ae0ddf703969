// A file for each version: they take long enough to run side by side.
import { PodCgroups } from "../../sandbox/pod-cgroups.ts";
import { killInVfio } from "./killed-vfio.ts";
import { VFIO_NEEDS } from "./vfio-scene.ts";

killInVfio(1, PodCgroups.make(), VFIO_NEEDS);
