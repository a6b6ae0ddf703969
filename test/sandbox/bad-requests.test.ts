// Whatever a client sends that makes no sense: a clear error, an unchanged node, and the next one is served.
import assert from "node:assert/strict";
import { openSync } from "node:fs";
import type { CallChanges } from "../../sandbox/nsm/client.ts";
import { inodeUrlOf } from "../../sandbox/nsm/passed-files.ts";
import type { SandboxPod } from "../../sandbox/sandbox.ts";
import type { NetworkServiceRequest } from "../../src/gen/networkservice_pb.ts";
import { Fd } from "../../src/kernel/index.ts";
import { ip, ipDump } from "./scenes/ip.ts";
import { refusal, runStories, type Scene, type Story } from "./scenes/story.ts";

/** What is wrong with one Request, and what its caller hears. */
interface Row {
  readonly says: string;
  /** Parameters of the mechanism in place of the good ones. */
  readonly parameters?: Readonly<Record<string, string>>;
  readonly alter?: (request: NetworkServiceRequest) => void;
  /** Opens what is sent in place of the pod's network namespace, and named by inodeURL. */
  readonly file?: (scene: Scene) => Fd;
  readonly code: string;
  readonly message: RegExp;
}

const rows: readonly Row[] = [
  { says: "no token", parameters: { tokenID: "" }, code: "INVALID_ARGUMENT", message: /device token \(tokenID\)/ },
  {
    says: "a token that was never given out",
    parameters: { tokenID: "sriov-12345678-1234-1234-1234-123456789abc" },
    code: "NOT_FOUND",
    message: /no resource of this node gave it out/,
  },
  {
    says: "a token that is a path",
    parameters: { tokenID: "../../etc/shadow" },
    code: "INVALID_ARGUMENT",
    message: /device token/,
  },
  { says: "no inodeURL", parameters: { inodeURL: "" }, code: "INVALID_ARGUMENT", message: /want inode:\/\// },
  {
    says: "the path of a namespace",
    parameters: { inodeURL: "file:///proc/1/ns/net" },
    code: "INVALID_ARGUMENT",
    message: /want inode:\/\//,
  },
  {
    says: "a file as its namespace",
    file: () => opened("/etc/hostname"),
    code: "INVALID_ARGUMENT",
    message: /no namespace at all/,
  },
  {
    says: "a namespace of another kind",
    file: () => opened("/proc/self/ns/uts"),
    code: "INVALID_ARGUMENT",
    message: /a namespace of another kind/,
  },
  {
    says: "a socket as its namespace",
    file: ({ sandbox }) => Fd.ofPath(`${sandbox.folder}/nsm.sock`),
    code: "INVALID_ARGUMENT",
    message: /no namespace at all/,
  },
  {
    says: "the host's own namespace",
    file: ({ sandbox }) => sandbox.machine.netns.fd.dup(),
    code: "INVALID_ARGUMENT",
    message: /host's own network namespace/,
  },
  ...["", "a234567890123456", ".", "..", "a/b", "a b", "\t", "eth%d", "a:1"].map((name) => ({
    says: `the interface name ${JSON.stringify(name)}`,
    parameters: { name },
    code: "INVALID_ARGUMENT",
    message: /interface name \(name\)/,
  })),
  {
    says: "an unknown mechanism",
    alter: ({ mechanismPreferences }) => {
      for (const mechanism of mechanismPreferences) mechanism.type = "MEMIF";
    },
    code: "INVALID_ARGUMENT",
    message: /cannot support any of the requested mechanism/,
  },
  {
    says: "a path index behind the path",
    alter: ({ connection }) => {
      if (connection?.path) connection.path.index = 7;
    },
    code: "INVALID_ARGUMENT",
    message: /Path.Index\+1==8 should be less or equal/,
  },
  {
    says: "no connection id",
    alter: ({ connection }) => {
      if (connection) connection.id = "";
    },
    code: "INVALID_ARGUMENT",
    message: /should be equal Connection.Id/,
  },
  {
    says: "an unknown network service",
    alter: ({ connection }) => {
      if (connection) connection.networkService = "not-served";
    },
    code: "NOT_FOUND",
    message: /not-served/,
  },
  {
    says: "a hundred preferences",
    alter: ({ mechanismPreferences: list }) => void (list[0] && list.push(...Array(100).fill(list[0]))),
    code: "INVALID_ARGUMENT",
    message: /101 are more than the limit/,
  },
  {
    says: "more elements than any has",
    alter: ({ mechanismPreferences: list }) => void (list[0] && list.push(...Array(1000).fill(list[0]))),
    code: "RESOURCE_EXHAUSTED",
    message: /has more than 8192 elements/,
  },
  {
    says: "a label of 200 KB",
    alter: ({ connection }) => {
      if (connection) connection.labels["long"] = "x".repeat(200_000);
    },
    code: "INVALID_ARGUMENT",
    message: /bytes of labels/,
  },
  {
    says: "a message of 300 KB",
    alter: ({ connection }) => {
      if (connection) connection.labels["long"] = "x".repeat(300_000);
    },
    code: "RESOURCE_EXHAUSTED",
    message: /NetworkService\/Request of \d+ bytes: the limit is 262144 bytes/,
  },
];

runStories(
  "a Request with",
  {},
  {
    ...Object.fromEntries(
      rows.map((row): [string, Story] => [`${row.says} is refused`, (scene) => refused(scene, row)]),
    ),
    "the token that another pod uses is refused": tokenInUse,
    "a name that the pod has taken is refused": takenName,
    "no file of its namespace waits for it only so long": noFile,
  },
);

async function refused(scene: Scene, { parameters, alter, file, code, message }: Row): Promise<void> {
  const pod = await scene.pod();
  const fd = file?.(scene);
  const good = { name: "nsm-1", tokenID: pod.tokenId };
  const client = scene.direct(pod, {
    parameters: { ...good, ...(fd && { inodeURL: inodeUrlOf(fd.id()) }), ...parameters },
  });
  const changes: CallChanges = { ...(alter && { alter }), ...(fd && { fds: [fd] }) };
  const { endpoint } = scene.sandbox;
  const requested = endpoint.requests.length;
  try {
    await assert.rejects(client.request(changes), refusal(code, message));
    assert.equal(endpoint.requests.length, requested, "no endpoint was asked");
  } finally {
    fd?.close();
  }
  await unharmed(scene, pod);
}

/** The node is as it was, for the pod too, which can have its connection with a better Request. */
async function unharmed(scene: Scene, pod: SandboxPod): Promise<void> {
  assert.deepEqual(await pod.pod.links(), []);
  await scene.serves(pod);
}

async function tokenInUse(scene: Scene): Promise<void> {
  const [first, second] = [await scene.pod(), await scene.pod()];
  await first.client.request();
  const thief = scene.direct(second, { parameters: { name: "nsm-1", tokenID: first.tokenId } });
  await assert.rejects(thief.request(), refusal("RESOURCE_EXHAUSTED", /holds its virtual function/));
  assert.equal((await first.pod.link("nsm-1"))?.up, true);
  await unharmed(scene, second);
  await first.client.close();
}

async function takenName(scene: Scene): Promise<void> {
  const pod = await scene.pod();
  await ip(pod.pod.netns, "link add name nsm-1 type bridge");
  const before = await ipDump(pod.pod.netns);
  await assert.rejects(scene.direct(pod).request(), refusal("ALREADY_EXISTS", /has that name/));
  assert.deepEqual(await ipDump(pod.pod.netns), before);
  await ip(pod.pod.netns, "link del nsm-1");
  await scene.serves(pod);
}

async function noFile(scene: Scene): Promise<void> {
  const [pod, other] = [await scene.pod(), await scene.pod()];
  const waiting = scene.direct(pod).request({ fds: [] });
  const refused = assert.rejects(waiting, refusal("INVALID_ARGUMENT", /did not arrive/));
  await scene.serves(other); // meanwhile
  await refused;
  await unharmed(scene, pod);
}

function opened(path: string): Fd {
  return Fd.own(openSync(path, "r"));
}
