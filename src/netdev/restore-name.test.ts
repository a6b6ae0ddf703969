import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../async/testing/virtual-clock.ts";
import { Errno, KernelError, type Link, type LinkPlace, type SetLink } from "../kernel/index.ts";
import { silentLog } from "../telemetry/index.ts";
import { signsOfTime } from "./link-signs.ts";
import { giveAltName, giveName, isMisnamed, NOTHING_KNOWN } from "./restore-name.ts";
import { identity, VF } from "./testing/host-with-links.ts";
import { Patience } from "./transient.ts";

const STAND_IN = `vf${VF.replaceAll(/[:.]/g, "-")}`;
const { temporaryName } = identity;
const { name } = identity.original;

interface Crowd {
  readonly tries: number;
  readonly on: string | undefined;
  /** What the link is called that is to have its name. */
  readonly called?: string;
  readonly isPromised?: boolean;
  /** Whether who has it is known to keep it. */
  readonly isKept?: boolean;
}

/** A host where a link, on that PCI function, has the name at so many of our tries. */
function crowdedHost({ tries, on, called = "eth3", isPromised = false, isKept = false }: Crowd) {
  const clock = new VirtualClock();
  const [renamed, startedMs] = [[] as string[], clock.monotonicMs()];
  let left = tries;
  const rtnl = {
    async setLink(_index: number, { name: to = "" }: SetLink) {
      if (to === name && left-- > 0) throw new KernelError("rename", Errno.EEXIST);
      renamed.push(to);
    },
    linkByName: async () => (left > 0 ? { index: 9, name } : undefined),
  };
  const host = { rtnl } as unknown as LinkPlace;
  const of = { address: VF, linkOwnerOf: async () => ({ pciFunction: on, text: String(on) }) };
  const patience = new Patience({ link: name, clock, log: silentLog, limitMs: 60_000, nextSign: signsOfTime(clock) });
  const othersNames = {
    isPromised: (one: string) => isPromised && one === name,
    isKeptBy: (one: string) => isKept && one === on,
  };
  const give = () => giveName({ host, identity, of, patience, clock, othersNames }, { index: 7, name: called });
  return { give, renamed, tookMs: () => clock.monotonicMs() - startedMs };
}

const OTHER_VF = "0000:01:10.1";
for (const [says, crowd, names] of [
  ["its own where that is free", { tries: 0, on: undefined }, [name]],
  ["its own again after another link had it just now", { tries: 1, on: undefined }, [temporaryName, name]],
  [
    "its own where another PCI function gives it up, whose name it may have itself",
    { tries: 3, on: OTHER_VF },
    [temporaryName, temporaryName, temporaryName, name],
  ],
  ["its stand-in where a link keeps it that comes with no VF", { tries: 99, on: undefined }, [temporaryName, STAND_IN]],
  ["its stand-in, which it has already", { tries: 99, on: undefined, called: STAND_IN }, []],
  ["its own again where it had its stand-in", { tries: 0, on: undefined, called: STAND_IN }, [name]],
  ["its stand-in where another VF is to have its own", { tries: 0, on: undefined, isPromised: true }, [STAND_IN]],
] as const satisfies readonly (readonly [string, Crowd, readonly string[]])[]) {
  test(`giveName() gives a link ${says}`, async () => {
    const { give, renamed } = crowdedHost(crowd);
    await give();
    assert.deepEqual(renamed, names);
  });
}

test("isMisnamed() is a link without its own name, or a new one without its stand-in where that is promised to another", () => {
  const names = [name, "eth3", STAND_IN];
  const of = { address: VF, linkOwnerOf: async () => ({ pciFunction: VF, text: VF }) };
  const misnamed = (isPromised: boolean, index: number) => {
    const othersNames = { ...NOTHING_KNOWN, isPromised: () => isPromised };
    return names.filter((one) => isMisnamed({ identity, of, othersNames }, { index, name: one }));
  };
  assert.deepEqual([misnamed(false, 8), misnamed(false, 7)], [names.slice(1), names.slice(1)]);
  assert.deepEqual([misnamed(true, 8), misnamed(true, 7)], [[name, "eth3"], ["eth3"]]);
});

test("giveName() takes its own name from the alternative names of the link", async () => {
  const clock = new VirtualClock();
  const link = { index: 7, name: "eth3", altNames: [name] as readonly string[] };
  const rtnl = {
    async setLink(_index: number, { name: to, removeAltNames: gone = [] }: SetLink) {
      if (to !== undefined && link.altNames.includes(to)) throw new KernelError("rename", Errno.EEXIST);
      if (to !== undefined) link.name = to;
      link.altNames = link.altNames.filter((one) => !gone.includes(one));
    },
    linkByName: async (of: string) => ([link.name, ...link.altNames].includes(of) ? link : undefined),
  };
  const of = { address: VF, linkOwnerOf: async () => ({ pciFunction: VF, text: VF }) };
  const patience = new Patience({ link: name, clock, log: silentLog, limitMs: 60_000, nextSign: signsOfTime(clock) });
  const host = { rtnl } as unknown as LinkPlace;
  await giveName({ host, identity, of, patience, clock, othersNames: NOTHING_KNOWN }, { index: 7, name: "eth3" });
  assert.deepEqual(link, { index: 7, name, altNames: [] });
});

test("giveName() waits five seconds for another PCI function to give the name up", async () => {
  const { give, renamed, tookMs } = crowdedHost({ tries: Number.POSITIVE_INFINITY, on: OTHER_VF });
  await give();
  assert.equal(renamed.at(-1), STAND_IN);
  assert.ok(tookMs() >= 5_000 && tookMs() <= 5_500, `${tookMs()} ms`);
});

test("giveName() does not wait for a PCI function that keeps the name", async () => {
  const { give, renamed, tookMs } = crowdedHost({ tries: Number.POSITIVE_INFINITY, on: OTHER_VF, isKept: true });
  await give();
  assert.deepEqual([renamed, tookMs()], [[temporaryName, STAND_IN], 0]);
});

test("giveAltName() is content with a name that the link has already, and not with one that another link has", async () => {
  const give = async (altNames: readonly string[], code: keyof typeof Errno = "EEXIST") => {
    const setLink = async () => {
      throw new KernelError("add an altname", Errno[code]);
    };
    const rtnl = { setLink, linkByIndex: async () => ({ altNames }) as Link };
    await giveAltName({ rtnl } as unknown as LinkPlace, 7, "uplink");
  };
  await give(["uplink"]);
  await assert.rejects(give([]), /EEXIST/);
  await assert.rejects(give(["uplink"], "EIO"), /EIO/);
});
