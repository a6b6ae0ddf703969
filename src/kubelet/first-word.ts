import { type Clock, startDeadline } from "../async/index.ts";
import type { PodResources, PodResourcesState } from "./pod-resources.ts";

/** An unlucky start of kubelet's must not keep us from offering; what it says later is taken in all the same. */
const FIRST_WORD_LIMIT_MS = 3000;

/** What kubelet's pod resources API says first. @throws when it has said nothing in some seconds. */
export async function firstWord({ state }: Pick<PodResources, "state">, clock: Clock): Promise<PodResourcesState> {
  const deadline = startDeadline(clock, FIRST_WORD_LIMIT_MS, { what: "kubelet's list of pods" });
  try {
    return await state.first(deadline.signal);
  } finally {
    deadline.end();
  }
}
