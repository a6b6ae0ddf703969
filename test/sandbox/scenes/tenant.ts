// One pod after the other that has a VF as a network device, and what each sees of it.
import type { Netns } from "../../../src/kernel/index.ts";
import { type LinkSettings, readLinkSettings } from "../../../src/netdev/index.ts";
import { ip, type Row, tc } from "./ip.ts";
import type { Scene } from "./story.ts";

interface Seen {
  readonly settings: LinkSettings;
  readonly row: Row;
  readonly qdiscs: string;
}

/** All that can be said of a link, but for its index and for the address that each client gets from its endpoint. */
export async function seen(netns: Netns, name: string): Promise<Seen> {
  const [row = {}] = JSON.parse(await ip(netns, `-json -details link show dev ${name}`)) as Row[];
  const settings = await readLinkSettings({ netns }, { index: Number(row["ifindex"]), name });
  const { ifindex: _, link_index: _end, address: _mac, ...rest } = row;
  return { settings, row: rest, qdiscs: await tc(netns, `qdisc show dev ${name}`) };
}

/** A pod that has the VF until `end`. */
export async function nextTenant(scene: Scene, home?: Netns) {
  const pod = await scene.pod();
  const client = home ? scene.sandbox.clientOf(pod, { netns: home }) : pod.client;
  const netns = home ?? pod.pod.netns;
  await client.request();
  const end = async () => {
    await client.close();
    await client.hangUp();
    await scene.cleaned();
    await scene.endPods();
  };
  return { netns, end, gets: await seen(netns, "nsm-1") };
}
