import { killInVfio } from "./killed-vfio.ts";
import { UNIFIED_NEEDS, unifiedCgroups } from "./vfio-scene.ts";

killInVfio(2, unifiedCgroups(), UNIFIED_NEEDS);
