// How long the kernel takes for the steps of a connection, through the code that the forwarder uses for them.
import { Netns, Rtnl } from "../../src/kernel/index.ts";
import type { SettingsSubject } from "./vf-settings.ts";

const ROUNDS = 5;

/** Times in ms by step: bind and unbind by driver, settings on the physical function, into a namespace and back, and up. */
export async function timeSteps(subject: SettingsSubject): Promise<Readonly<Record<string, readonly number[]>>> {
  const { drivers, devices, vf, kernelDriver, port, index } = subject;
  const times: Record<string, number[]> = {};
  const time = async <T>(step: string, work: () => Promise<T>): Promise<T> => {
    const startedAt = performance.now();
    const result = await work();
    times[step] = [...(times[step] ?? []), Math.round((performance.now() - startedAt) * 100) / 100];
    return result;
  };
  for (let round = 0; round < ROUNDS; round++) {
    await time("unbind_kernel", () => drivers.writeText(`${kernelDriver}/unbind`, vf));
    await devices.writeText(`${vf}/driver_override`, "vfio-pci");
    await time("bind_vfio", () => drivers.writeText("vfio-pci/bind", vf));
    await time("unbind_vfio", () => drivers.writeText("vfio-pci/unbind", vf));
    await devices.writeText(`${vf}/driver_override`, "\n");
    await time("bind_kernel", () => drivers.writeText(`${kernelDriver}/bind`, vf));
    await time("configure_vf", () => port.write(index, { vlan: round % 2 === 0 ? 7 : 0 }));
    await timeMove(subject, time);
  }
  await port.write(index, { vlan: 0 });
  return times;
}

async function timeMove(
  { devices, vf }: SettingsSubject,
  time: <T>(step: string, work: () => Promise<T>) => Promise<T>,
): Promise<void> {
  const [home, away] = [Netns.current(), Netns.create()];
  const [host, pod] = [Rtnl.open({ netns: home }), Rtnl.open({ netns: away })];
  try {
    const [ifname = ""] = await devices.list(`${vf}/net`);
    const link = await host.linkByName(ifname);
    if (!link) throw new Error(`${vf} has no network device`);
    await time("move", () => host.setLink(link.index, { netns: away, name: "nsm-1" }));
    const moved = await pod.linkByName("nsm-1");
    if (!moved) throw new Error(`${ifname} did not arrive`);
    const address = { ifindex: moved.index, address: "10.0.0.1", prefixLength: 24 };
    await time("configure_link", async () => {
      await pod.setLink(moved.index, { up: true });
      await pod.addAddress(address);
    });
    await time("move_home", () => pod.setLink(moved.index, { netns: home, name: ifname, up: false }));
  } finally {
    for (const rtnl of [host, pod]) rtnl.close();
    for (const netns of [home, away]) netns.close();
  }
}
