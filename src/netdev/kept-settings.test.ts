import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock, systemRandom } from "../async/index.ts";
import { type Link, Netns, type Rtnl } from "../kernel/index.ts";
import { HostLinks } from "./host-links.ts";
import { restoreKept } from "./kept-settings.ts";
import { type LinkSettings, linkDifferences } from "./link-settings.ts";
import type { SettingsDoor } from "./settings-door.ts";

const VF = "0000:01:10.0";
const BOOT = "this boot";

/** A new device with these settings, whose kernel takes all but the `stubborn` ones. */
function deviceWith(
  now: Record<string, string>,
  { stubborn = [] as readonly string[], boot = BOOT, whileItWorks = {} } = {},
) {
  const restores: LinkSettings[] = [];
  const linkSettings: SettingsDoor = {
    boot: BOOT,
    read: async () => now,
    async restore(_place, _link, before) {
      restores.push(before);
      Object.assign(now, whileItWorks);
      const left = linkDifferences(before, now).filter(({ setting }) => stubborn.includes(setting));
      return { restored: [], remaining: left.map((one) => ({ ...one, error: undefined })) };
    },
  };
  const link = { index: 7, name: "enp1s0f0v0" } as Link;
  const openRtnl = () => ({ linkByIndex: async () => link, close() {} }) as unknown as Rtnl;
  const linkOwnerOf = async () => ({ pciFunction: VF, text: VF });
  const host = { netns: {} as Netns, openRtnl, linkOwnerOf, netnsOf: Netns.fromFd, random: systemRandom, linkSettings };
  const restore = (settings: LinkSettings) =>
    restoreKept(new HostLinks(host, systemClock), { address: VF, ifindex: 7, kept: { boot, settings } });
  return { restore, restores };
}

test("restoreKept() has nothing to say where all is as the host had set it", async () => {
  const { restore, restores } = deviceWith({ txqueuelen: "u32 1000" }, { stubborn: ["alias"] });
  assert.deepEqual(await restore({ txqueuelen: "u32 555" }), []);
  assert.deepEqual(restores, [{ txqueuelen: "u32 555" }]);
});

test("restoreKept() answers with what the device does not take", async () => {
  const { restore } = deviceWith({ group: "u32 0" }, { stubborn: ["group", "xdp drv"] });
  assert.deepEqual(await restore({ group: "u32 7", "xdp drv": "program 5" }), [
    { setting: "group", before: "u32 7", after: "u32 0", error: undefined },
    { setting: "xdp drv", before: "program 5", after: undefined, error: undefined },
  ]);
});

test("restoreKept() gives back altnames of the host, and leaves new ones to udev, which may give more meanwhile", async () => {
  const stubborn = ["altname later", "altname uplink"];
  const device = { stubborn, whileItWorks: { "altname later": "on" } };
  const { restore, restores } = deviceWith({ "altname by-udev": "on" }, device);
  assert.deepEqual(
    (await restore({ "altname uplink": "on" })).map(({ setting }) => setting),
    ["altname uplink"],
  );
  assert.deepEqual(restores, [{ "altname uplink": "on", "altname by-udev": "on" }]);
});

test("restoreKept() gives nothing of another boot back: its numbers mean other things", async () => {
  const { restore, restores } = deviceWith({ group: "u32 0" }, { stubborn: ["group"], boot: "another" });
  assert.deepEqual(await restore({ group: "u32 7" }), []);
  assert.deepEqual(restores, []);
});
