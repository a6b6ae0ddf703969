import { Pinger } from "../../../sandbox/network/ping.ts";
import type { SandboxPod } from "../../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../../src/async/index.ts";

/** The traffic of a pod that nothing that is done to others may stop: a ping every 20 ms from here on. */
export class BystanderPings {
  readonly #running: Promise<{ sent: number; lost: number }>;
  #isOver = false;

  constructor(bystander: SandboxPod) {
    this.#running = this.#run(bystander);
    this.#running.catch(() => {}); // who stops it gets it
  }

  /** What has become of them. */
  async stop(): Promise<{ sent: number; lost: number }> {
    this.#isOver = true;
    return await this.#running;
  }

  async #run({ client, pod }: SandboxPod): Promise<{ sent: number; lost: number }> {
    const to = client.connection?.context?.ipContext?.dstIpAddrs[0]?.split("/")[0] ?? "";
    const count = { sent: 0, lost: 0 };
    const pinger = new Pinger({ netns: pod.netns, to, timeoutMs: 60_000, clock });
    try {
      while (!this.#isOver) {
        count.sent += 1;
        if ((await pinger.ping()) === undefined) count.lost += 1;
        await clock.sleep(20);
      }
    } finally {
      pinger.close();
    }
    return count;
  }
}
