// One VF, one pod after the other: whatever the former did to its link, the latter gets what the first one got, and the host has
// back what it had.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, describe, test } from "node:test";
import { Netns } from "../../src/kernel/index.ts";
import { type Need, needs } from "../needs.ts";
import { attachByBpfLink, attachXdp, loadPassAll } from "../scenes/bpf-programs.ts";
import { setByEthtool, WITHOUT_SCATTER_GATHER } from "../scenes/ethtool.ts";
import { ip, type Row, tc } from "./scenes/ip.ts";
import { type Scene, sharedScene } from "./scenes/story.ts";
import { nextTenant, seen } from "./scenes/tenant.ts";

const XDP_SKB = 2;

/** The pod's namespace, and one that is nested in it; its link is "nsm-1". Answers with what it leaves open. */
type Attack = (
  pod: Netns,
  place: { readonly nested: Netns; readonly index: number },
) => Promise<{ close(): void } | undefined>;

const byIp =
  (...commands: readonly string[]): Attack =>
  async (pod, { nested }) => {
    for (const command of commands) {
      await ip(pod, command.replace("NESTED", `/proc/${process.pid}/fd/${nested.fd.number}`));
    }
    return undefined;
  };

const byTc =
  (...commands: readonly string[]): Attack =>
  async (pod) => {
    for (const command of commands) await tc(pod, command);
    return undefined;
  };

const attacks: Readonly<Record<string, Attack>> = {
  "hears all packets": byIp("link set nsm-1 promisc on", "link set nsm-1 allmulticast on"),
  "knows no neighbours": byIp("link set nsm-1 arp off", "link set nsm-1 multicast off"),
  "has its own sizes": byIp("link set nsm-1 mtu 1280", "link set nsm-1 txqueuelen 7", "link set nsm-1 gso_max_segs 9"),
  "has another address": byIp("link set nsm-1 address 02:de:ad:be:ef:01", "link set nsm-1 broadcast 02:00:00:00:00:ff"),
  "has names": byIp("link set nsm-1 group 77", "link set nsm-1 alias of-the-pod"),
  "has names that the host wants": byIp(
    "link property add dev nsm-1 altname docker0",
    "link property add dev nsm-1 altname eth0",
  ),
  "has the name of a link of the host, which cannot come back so": byIp("link property add dev nsm-1 altname enp1s0f0"),
  "is renamed": byIp("link set nsm-1 down", "link set nsm-1 name mine"),
  "is moved on": byIp("link set nsm-1 netns NESTED"),
  "is deleted, which only a veth can be": byIp("link del nsm-1"),
  "is a port of a bond": byIp("link set nsm-1 down", "link add b7 type bond", "link set nsm-1 master b7"),
  "is in a VRF": byIp("link add v7 type vrf table 7", "link set nsm-1 master v7"),
  "queues in another way": byTc("qdisc add dev nsm-1 root pfifo limit 3"),
  "filters what comes": byTc(
    "qdisc add dev nsm-1 clsact",
    "filter add dev nsm-1 ingress u32 match u32 0 0 classid 1:1",
  ),
  async "has fewer features"(pod, link) {
    await setByEthtool(pod, link, WITHOUT_SCATTER_GATHER);
    return undefined;
  },
  "carries a VLAN": byIp("link add link nsm-1 name v7 type vlan id 7", "link set v7 up"),
  "carries a macvlan": byIp("link add link nsm-1 name m0 type macvlan mode bridge", "link set m0 up"),
  "carries a macvlan that lives elsewhere": byIp(
    "link add link nsm-1 name m0 type macvlan mode bridge",
    "link set m0 netns NESTED",
  ),
  "carries a VLAN that lives elsewhere": byIp("link add link nsm-1 name v7 type vlan id 7", "link set v7 netns NESTED"),
  "is a port of a bridge": byIp("link add br7 type bridge", "link set nsm-1 master br7"),
  async "is seen by a program"(pod, { index }) {
    const program = loadPassAll("xdp");
    await attachXdp(pod, index, { program, flags: XDP_SKB });
    program.close();
    return undefined;
  },
  async "is seen by a program that a process holds"(pod, { index }) {
    const program = loadPassAll("xdp");
    const held = attachByBpfLink(pod, index, { kind: "xdp", program, flags: XDP_SKB });
    program.close();
    return held;
  },
  async "is seen by a tcx program that a process holds"(pod, { index }) {
    const program = loadPassAll("tcx");
    const held = attachByBpfLink(pod, index, { kind: "tcx", program });
    program.close();
    return held;
  },
};

const NEEDS: readonly Need[] = ["netns", "veth", "bridge", "tc"];
/** A word in the name of an attack, and what the attack takes. */
const MORE_NEEDS: Readonly<Record<string, Need>> = {
  VLAN: "vlan",
  bond: "bond",
  VRF: "vrf",
  program: "bpf",
  tcx: "tcx",
};

/** A namespace of a pod that has user namespaces (`hostUsers: false`). */
async function netnsOfOtherUsers(): Promise<Netns> {
  const child = spawn("unshare", ["-rn", "sh", "-c", "echo there; read end"], { stdio: ["pipe", "pipe", "inherit"] });
  await once(child.stdout, "data");
  const netns = Netns.openPath(`/proc/${child.pid}/ns/net`);
  const ended = once(child, "close");
  child.stdin.end();
  await ended;
  return netns;
}

async function threeTenants(scene: Scene, attack: Attack, home?: Netns): Promise<void> {
  const host = scene.sandbox.machine.netns;
  await ip(host, "link set enp1s0f0v0 txqueuelen 555");
  await ip(host, "link set enp1s0f0v0 alias of-the-operator");
  const before = await seen(host, "enp1s0f0v0");
  const first = await nextTenant(scene);
  await first.end();
  assert.deepEqual(await seen(host, "enp1s0f0v0"), before);

  const { netns, end } = await nextTenant(scene, home);
  const nested = Netns.create();
  const { ifindex = 0 } = (JSON.parse(await ip(netns, "-json link show dev nsm-1")) as Row[])[0] ?? {};
  const held = await attack(netns, { nested, index: Number(ifindex) });
  await end();
  assert.deepEqual(await seen(host, "enp1s0f0v0"), before, "the host");
  assert.match(await ip(nested, "-o link"), /^1: lo[^\n]*\n$/, "what was elsewhere");

  const last = await nextTenant(scene);
  assert.deepEqual(last.gets, first.gets, "the next tenant");
  await last.end();
  await ip(host, "link add docker0 type bridge");
  await ip(host, "link del docker0");
  held?.close();
  nested.close();
}

describe("the next tenant of a VF gets what the first one got, though the one before", () => {
  const shared = sharedScene({ machine: { pfs: 1, vfsPerPf: 1 } });
  after(() => shared.close());

  for (const [does, attack] of Object.entries(attacks)) {
    test(does, async (t) => {
      const more = Object.entries(MORE_NEEDS).flatMap(([word, need]) => (does.includes(word) ? [need] : []));
      if (needs(t, ...NEEDS, ...more)) await shared.run((scene) => threeTenants(scene, attack));
    });
  }

  test("lives in a user namespace of its own", async (t) => {
    if (!needs(t, ...NEEDS, "userns")) return;
    const home = await netnsOfOtherUsers();
    const attack = byIp(
      "link set nsm-1 promisc on",
      "link property add dev nsm-1 altname eth0",
      "link add link nsm-1 name m0 type macvlan mode bridge",
      "link set m0 netns NESTED",
    );
    await shared.run((scene) => threeTenants(scene, attack, home));
    home.close();
  });
});
