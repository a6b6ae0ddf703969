// What each peer may have of this process, in one place: docs/decisions/047. All of it follows from two numbers of the process.
import { memoryShortage } from "./least-memory.ts";
import { QUOTA, type Quota } from "./nsm/index.ts";
import { defaultLimits, type RateLimits, type RpcLimits, type ShareLimits } from "./rpc/index.ts";

/** What a process is allowed, as far as it is known. */
export interface ProcessLimits {
  /** Of its memory cgroup; undefined without one. */
  readonly memoryBytes?: number | undefined;
  /** RLIMIT_NOFILE; undefined without one. */
  readonly openFiles?: number | undefined;
}

/** What peers may have. */
export interface Budgets {
  readonly rpc: RpcLimits;
  readonly quota: Quota;
  /** Why the memory is too little for any; undefined where it is enough. */
  readonly shortage?: string;
}

const KIB = 1024;
const MIB = 1024 * KIB;

/** What the shipped manifests give, and every number was measured with. */
const FULL_BYTES = 256 * MIB;
/** What is in use at rest and no peer can have: 85 MiB, of which the kernel can reclaim a part of the program's own. */
const REST_BYTES = 64 * MIB;
/** Below this nothing useful is left. */
const SMALLEST_PART = 1 / 8;

/** Of all descriptors, those that peers may hold. The rest is for links, files and calls. */
const DESCRIPTORS = { each: 1 / 32, others: 1 / 8, manager: 1 / 16 };
const UNKNOWN_DESCRIPTORS = 1 / 32;
const CALLS = { each: 1 / 32, others: 1 / 8, manager: 1 / 8 };
const DIALS = { each: 1 / 64, others: 1 / 16, manager: 1 / 32 };
const ENDPOINT_SOCKETS = { each: 3 / 256, others: 3 / 64, manager: 1 / 64 };
const CONNECTIONS = { each: 3 / 64, others: 3 / 16, manager: 1 / 16 };

/** Budgets of a process. With 256 MiB or more, or no limit, they are the defaults; with less, parts of them. */
export function budgetsFor({ memoryBytes = FULL_BYTES, openFiles = Number.POSITIVE_INFINITY }: ProcessLimits): Budgets {
  const part = Math.min(1, Math.max(SMALLEST_PART, (memoryBytes - REST_BYTES) / (FULL_BYTES - REST_BYTES)));
  const of = (amount: number, atLeast = 1) => Math.max(Math.floor(amount * part), atLeast);
  const shortage = memoryShortage(memoryBytes);
  return { rpc: rpcPart(of, openFiles), quota: quotaPart(of), ...(shortage !== undefined && { shortage }) };
}

type PartOf = (amount: number, atLeast?: number) => number;

/** With very few descriptors one client is served all the same. */
const atLeastOne = (part: number) => Math.max(1, Math.floor(part));

function rpcPart(of: PartOf, openFiles: number): RpcLimits {
  const { maxMessageBytes, calls, connections, dials, arrivalBytes, decodedElements, heldBytes } = defaultLimits;
  const { answerBytes, descriptors, endpointSockets } = defaultLimits;
  const scaled = ({ each, others, manager }: ShareLimits, atLeast: ShareLimits) => ({
    each: of(each, atLeast.each),
    others: of(others, atLeast.others),
    manager: of(manager, atLeast.manager),
  });
  const within = ({ each, others, manager }: ShareLimits, parts: ShareLimits) => ({
    each: Math.min(each, atLeastOne(openFiles * parts.each)),
    others: Math.min(others, atLeastOne(openFiles * parts.others)),
    manager: Math.min(manager, atLeastOne(openFiles * parts.manager)),
  });
  return {
    ...defaultLimits,
    // A manager requests and watches all connections of a node. A call dials one peer at a time, and has a namespace of its client.
    calls: within(scaled(calls, { each: 128, others: 512, manager: 512 }), CALLS),
    connections: within(scaled(connections, { each: 24, others: 96, manager: 32 }), CONNECTIONS),
    dials: within(scaled(dials, { each: 32, others: 128, manager: 64 }), DIALS),
    endpointSockets: within(endpointSockets, ENDPOINT_SOCKETS),
    arrivalBytes: scaled(arrivalBytes, {
      each: 2 * maxMessageBytes,
      others: 8 * maxMessageBytes,
      manager: 2 * maxMessageBytes,
    }),
    decodedElements: { each: of(decodedElements.each, 32 * KIB), others: of(decodedElements.others, 16 * KIB) },
    answerBytes: scaled(answerBytes, { each: MIB, others: 4 * MIB, manager: 5 * MIB }),
    heldBytes: scaled(heldBytes, { each: 2 * MIB, others: 8 * MIB, manager: 8 * MIB }),
    descriptors: within(descriptors, DESCRIPTORS),
    unknownDescriptors: Math.min(defaultLimits.unknownDescriptors, Math.floor(openFiles * UNKNOWN_DESCRIPTORS)),
    maxHandshakes: of(defaultLimits.maxHandshakes, 32),
  };
}

/** What holds a VF is bounded by the tokens of the node: its clients have to be served with little memory too. */
function quotaPart(of: PartOf): Quota {
  const { manager, other, others } = QUOTA;
  return {
    manager: {
      vf: { ...manager.vf, bytes: of(manager.vf.bytes, 4 * MIB) },
      noop: { ...manager.noop, bytes: of(manager.noop.bytes) },
    },
    other: {
      vf: { ...other.vf, bytes: of(other.vf.bytes, 64 * KIB) },
      noop: { ...other.noop, bytes: of(other.noop.bytes, 32 * KIB) },
    },
    others: { connections: of(others.connections, 64), bytes: of(others.bytes) },
  };
}

/** The budgets in words, for the log and `check`: each with what one peer may have, and all but the manager. */
export function describeBudgets({ rpc, quota }: Budgets): Readonly<Record<string, string>> {
  const pair = ({ each, others }: RateLimits, unit = "") => `${each}${unit} each, ${others}${unit} all but the manager`;
  const share = (limits: ShareLimits, unit = "") => `${pair(limits, unit)}, ${limits.manager}${unit} the manager`;
  const inKib = (amount: number) => Math.floor(amount / KIB);
  const shareInKib = (limits: ShareLimits) => `${kib(limits)}, ${inKib(limits.manager)} KiB the manager`;
  const kib = ({ each, others }: RateLimits) => pair({ each: inKib(each), others: inKib(others) }, " KiB");
  return {
    connections: share(rpc.connections),
    dials: share(rpc.dials),
    endpointSockets: share(rpc.endpointSockets),
    calls: share(rpc.calls),
    arrivalBytes: shareInKib(rpc.arrivalBytes),
    answerBytes: shareInKib(rpc.answerBytes),
    heldBytes: shareInKib(rpc.heldBytes),
    decodedElementsPerSecond: pair(rpc.decodedElements),
    descriptors: share(rpc.descriptors),
    connectionsWithoutVf: kib({ each: quota.other.noop.bytes, others: quota.others.bytes }),
    connectionsWithoutVfOfManager: `${Math.floor(quota.manager.noop.bytes / KIB)} KiB`,
  };
}
