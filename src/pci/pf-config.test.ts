import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePfConfig } from "./pf-config.ts";
import { PfConfigError } from "./pf-config-form.ts";

const twoFunctions = `
physicalFunctions:
  0000:01:00.0:
    pfKernelDriver: pf-driver
    vfKernelDriver: vf-driver
    capabilities: [intel, 10G]
    serviceDomains: [service.domain.1]
    virtualFunctions:
      - { address: 0000:01:00.1, iommuGroup: 1 }
      - { address: 0000:01:00.2, iommuGroup: 2 }
  0000:02:00.0:
    pfKernelDriver: pf-driver
    vfKernelDriver: vf-driver
    capabilities: [intel, 20G]
    serviceDomains: [service.domain.1, service.domain.2]
    virtualFunctions:
      - { address: 0000:02:00.1, iommuGroup: 1 }
`;

test("parsePfConfig() keeps addresses, groups and the order of the file", () => {
  const { physicalFunctions } = parsePfConfig(twoFunctions, "pci.config");
  assert.deepEqual(
    physicalFunctions.map(({ address, capabilities, serviceDomains, virtualFunctions }) => ({
      address,
      resources: serviceDomains.flatMap((domain) => capabilities.map((capability) => `${domain}/${capability}`)),
      virtualFunctions,
    })),
    [
      {
        address: "0000:01:00.0",
        resources: ["service.domain.1/intel", "service.domain.1/10G"],
        virtualFunctions: [
          { address: "0000:01:00.1", iommuGroup: 1 },
          { address: "0000:01:00.2", iommuGroup: 2 },
        ],
      },
      {
        address: "0000:02:00.0",
        resources: ["service.domain.1/intel", "service.domain.1/20G", "service.domain.2/intel", "service.domain.2/20G"],
        virtualFunctions: [{ address: "0000:02:00.1", iommuGroup: 1 }],
      },
    ],
  );
});

for (const text of ["", "# nothing\n", "physicalFunctions:\n", "physicalFunctions: {}\n", "{}"]) {
  test(`parsePfConfig() takes ${JSON.stringify(text)} for a node without VFs`, () => {
    assert.deepEqual(parsePfConfig(text, "pci.config"), { physicalFunctions: [] });
  });
}

test("parsePfConfig() reads the short address, capitals in keys, numbers as names, settings and aliases", () => {
  const text = `
physicalFunctions:
  "AF:00.0": &card
    PfKernelDriver: igb
    vfkerneldriver: igbvf
    capabilities: [10, true, intel]
    serviceDomains: [worker.domain]
    numVfs: 4
    carrier: require
    HostUse: create-vfs
    spoofCheck: true
    trust: false
    linkState: auto
    maxTxRateMbps: 1000
  10000:01:00.0: *card
`;
  const [first, second] = parsePfConfig(text, "pci.config").physicalFunctions;
  assert.deepEqual(first, {
    address: "0000:af:00.0",
    pfKernelDriver: "igb",
    vfKernelDriver: "igbvf",
    capabilities: ["10", "true", "intel"],
    serviceDomains: ["worker.domain"],
    virtualFunctions: [],
    numVfs: 4,
    carrier: "require",
    hostUse: "create-vfs",
    settings: { spoofCheck: true, trust: false, linkState: "auto", minTxRateMbps: undefined, maxTxRateMbps: 1000 },
  });
  assert.deepEqual(second, { ...first, address: "10000:01:00.0" });
});

test("parsePfConfig() takes a lowest rate that is the highest too", () => {
  const text = `physicalFunctions:
  01:00.0:
    pfKernelDriver: igb
    vfKernelDriver: igbvf
    capabilities: [intel]
    serviceDomains: [worker.domain]
    minTxRateMbps: 10
    maxTxRateMbps: 10
`;
  assert.equal(parsePfConfig(text, "f").physicalFunctions[0]?.settings.minTxRateMbps, 10);
});

function issuesOf(text: string): readonly string[] {
  try {
    parsePfConfig(text, "f");
  } catch (error) {
    assert.ok(error instanceof PfConfigError);
    return error.message.split("\n").slice(1);
  }
  return [];
}

test("parsePfConfig() takes lines that end as on Windows, the last one too, and keeps their places", () => {
  const text = `physicalFunctions:
  0000:01:00.0:
    capabilities: [intel]
    serviceDomains:
      - worker.domain
    vfKernelDriver: iavf
    pfKernelDriver: ice
`;
  const windows = text.replaceAll("\n", "\r\n");
  for (const cut of [0, 1, 2]) {
    assert.deepEqual(parsePfConfig(windows.slice(0, windows.length - cut), "f"), parsePfConfig(text, "f"));
  }
  assert.deepEqual(issuesOf(windows.replace("iavf", "a/b").replace(": ice", ': ""')), [
    'f:6:21: physicalFunctions["0000:01:00.0"].vfKernelDriver is "a/b": want the name of a driver, as in /sys/bus/pci/drivers',
    'f:7:21: physicalFunctions["0000:01:00.0"].pfKernelDriver is "": want text',
  ]);
});

test("parsePfConfig() refuses what is named twice in one spelling, and a service domain that is kept for quotas", () => {
  const entry = `  0000:01:00.0:
    pfKernelDriver: ice
    vfKernelDriver: iavf
    capabilities: [intel, 10G, intel]
    serviceDomains: [requests.worker.domain]
`;
  const issues = issuesOf(`physicalFunctions:\n${entry}${entry}`).map((issue) => issue.replace(/^.*?\] /, ""));
  const once = 'is "intel" once more: each only once';
  const quotas = 'is "requests.worker.domain", which begins with "requests.", which Kubernetes keeps for quotas';
  assert.deepEqual(issues, [
    once,
    quotas,
    'names 0000:01:00.0, which physicalFunctions["0000:01:00.0"] names already',
    once,
    quotas,
  ]);
});

test("parsePfConfig() reports everything that is wrong at once, each with its place and what was expected", () => {
  const text = `physicalFunction: {}
physicalFunctions:
  01:00.0:
    pfKernelDriver: ../etc
    vfKernelDrivr: iavf
    capabilities: []
    serviceDomains: [Worker.Domain, my.kubernetes.io]
    numVfs: 300
    linkState: up
    carrier: no
    hostUse: ignore
    minTxRateMbps: 20
    maxTxRateMbps: 10
    virtualFunctions: [{ address: nonsense }, { adress: 01:00.1 }, { address: 01:00.0, iommuGroup: -1 }]
  0000:01:00.0:
  card: 7
`;
  assert.deepEqual(issuesOf(text), [
    "f:1:1: physicalFunction is no known key (did you mean physicalFunctions?)",
    'f:4:5: physicalFunctions["01:00.0"].vfKernelDriver is missing: want the kernel driver of its virtual functions, such as iavf',
    'f:4:21: physicalFunctions["01:00.0"].pfKernelDriver is "../etc": want the name of a driver, as in /sys/bus/pci/drivers',
    'f:5:5: physicalFunctions["01:00.0"].vfKernelDrivr is no known key (did you mean vfKernelDriver?)',
    'f:6:19: physicalFunctions["01:00.0"].capabilities is empty: want at least one',
    'f:7:22: physicalFunctions["01:00.0"].serviceDomains[0] is "Worker.Domain", which is no DNS name: want lower-case letters, digits, - and . as in worker.domain',
    'f:7:37: physicalFunctions["01:00.0"].serviceDomains[1] is "my.kubernetes.io", which ends in kubernetes.io, which Kubernetes keeps for itself',
    'f:8:13: physicalFunctions["01:00.0"].numVfs is 300: want a whole number from 1 to 256',
    'f:9:16: physicalFunctions["01:00.0"].linkState is "up": want auto, enable or disable',
    'f:10:14: physicalFunctions["01:00.0"].carrier is "no": want watch, require or ignore',
    'f:11:14: physicalFunctions["01:00.0"].hostUse is "ignore": want withhold, create-vfs or allow',
    'f:13:20: physicalFunctions["01:00.0"].maxTxRateMbps is 10, less than minTxRateMbps (20)',
    'f:14:35: physicalFunctions["01:00.0"].virtualFunctions[0].address is no PCI address: "nonsense" (want domain:bus:device.function in hex, as in 0000:3b:02.1)',
    'f:14:47: physicalFunctions["01:00.0"].virtualFunctions[1] has no address',
    'f:14:49: physicalFunctions["01:00.0"].virtualFunctions[1].adress is no known key (did you mean address?)',
    'f:14:79: physicalFunctions["01:00.0"].virtualFunctions[2].address names 0000:01:00.0, which physicalFunctions["01:00.0"] names already',
    'f:14:100: physicalFunctions["01:00.0"].virtualFunctions[2].iommuGroup is -1: want a whole number from 0 to 9007199254740991',
    'f:15:3: physicalFunctions["0000:01:00.0"] names 0000:01:00.0, which physicalFunctions["01:00.0"].virtualFunctions[2] names already',
    'f:15:16: physicalFunctions["0000:01:00.0"] has nothing under it: want pfKernelDriver, vfKernelDriver, capabilities and serviceDomains',
    'f:16:3: physicalFunctions["card"] is no PCI address: "card" (want domain:bus:device.function in hex, as in 0000:3b:02.1)',
    'f:16:9: physicalFunctions["card"] is 7: want keys with values',
  ]);
});

const broken = [
  { says: "text that is no YAML", text: "physicalFunctions: [", line: "f:1:21: the file is no YAML here" },
  { says: "two documents", text: "a: 1\n---\nb: 2\n", line: "f:2:1: the file is no YAML here" },
  { says: "a list at the top", text: "- a\n", line: "f:1:1: the file is a list: want keys with values" },
  { says: "thousands of brackets", text: "[".repeat(20_000), line: "f:1:" },
  { says: "an alias to its own parent", text: "&a\nphysicalFunctions: *a\n", line: "f:2:" },
  {
    says: "aliases that multiply",
    text: `physicalFunctions:\n${"abcdefgh".replace(/./g, (c, i: number) => `  ${c}: &${c} [${i ? Array(9).fill(`*${"abcdefgh"[i - 1]}`) : 1}]\n`)}`,
    line: "f:1:1: the file has more than 100000 values",
  },
];
for (const { says, text, line } of broken) {
  test(`parsePfConfig() refuses ${says} with its place`, () => {
    const [first = ""] = issuesOf(text);
    assert.equal(first.slice(0, line.length), line);
  });
}

test("parsePfConfig() takes an alias for the latest node of its name before it", () => {
  const text = `a: &x {k: &y 1}\nb: &y 2\nc: *x\nphysicalFunctions: *y\nd: &y 3\n`;
  assert.equal(
    issuesOf(text).find((line) => line.startsWith("f:4")),
    "f:4:20: physicalFunctions is 2: want keys with values",
  );
});

test("parsePfConfig() takes time that grows with the number of aliases, and not with its square", () => {
  const each = (text: (index: number) => string) => Array.from({ length: 8_000 }, (_, index) => text(index)).join(", ");
  const startedAt = process.cpuUsage();
  assert.throws(() => parsePfConfig(`a: [${each((at) => `&a${at} 1`)}]\nb: [${each((at) => `*a${at}`)}]\n`, "f"));
  const { user } = process.cpuUsage(startedAt);
  assert.ok(user / 1000 < 5_000, `${user / 1000} ms`);
});

test("parsePfConfig() repeats of a file that is another program's its beginnings, on lines that are ours", () => {
  const long = issuesOf(`physicalFunctions:\n  01:00.0: "${"x".repeat(100_000)}\\r\\n"\n`);
  assert.deepEqual(
    long.map((line) => /^f:2:12: .*xxx … xxx.*: want keys with values$/.test(line) && line.length < 300),
    [true],
  );
  const many = issuesOf(`{ ${Array.from({ length: 5_000 }, (_, index) => `k${index}: 1`).join(", ")} }`);
  assert.deepEqual([many.length, many.at(-1)], [51, "f: and 4950 more like these"]);
});

test("parsePfConfig() never throws anything but PfConfigError, whatever the text (seeded)", () => {
  const pieces = twoFunctions.split(/(?<=[\s:[{,])/);
  let seed = 7;
  const random = (below: number) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return seed % below;
  };
  for (let round = 0; round < 300; round++) {
    const text = pieces.map((piece) => [piece, piece, piece, "", "- ", "{", "null ", "\t", "*x "][random(9)]).join("");
    try {
      parsePfConfig(text, "f");
    } catch (error) {
      assert.equal((error as Error).name, "PfConfigError", text);
    }
  }
});
