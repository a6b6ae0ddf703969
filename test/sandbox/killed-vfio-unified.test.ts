import { killInVfio } from "./scenes/killed-vfio.ts";
import { UNIFIED_NEEDS, unifiedCgroups } from "./scenes/vfio-scene.ts";

killInVfio(2, unifiedCgroups(), UNIFIED_NEEDS);
