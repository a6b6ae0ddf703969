// A node whose forwarder is a process of its own in a memory cgroup, as it runs in a pod, with two innocents beside.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import type { DesiredContext } from "../../sandbox/nsm/endpoint-context.ts";
import { MonitorRecord } from "../../sandbox/nsm/monitor-record.ts";
import { readToken } from "../../sandbox/nsm/peer-token.ts";
import { KillableForwarder } from "../../sandbox/process/killable.ts";
import { SANDBOX_FORWARDER, SANDBOX_RESOURCE, SANDBOX_SERVICE, SANDBOX_VLAN, Sandbox } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { type Connection, ConnectionEventType, type PathSegment } from "../../src/gen/connection_pb.ts";
import { NetworkService } from "../../src/gen/networkservice_pb.ts";
import { fittingOldSpace } from "../../src/process/fit-heap.ts";
import { RpcClient } from "../../src/rpc/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import type { Need } from "../needs.ts";
import { EVIL } from "./attacker/target.ts";
import { Innocent } from "./innocent.ts";
import { MemoryCgroup, MIB } from "./memory-cgroup.ts";
import { Steady } from "./steady.ts";

/** What a machine must have for it. */
export const HOSTILE_NEEDS = ["root", "netns", "veth", "bridge", "memory-cgroup"] as const satisfies readonly Need[];

const PFS = 2;
const VFS_PER_PF = 4;

/** Addresses for all connections that all owners may have: those without a VF take one, too. */
const PREFIXES = ["172.16.0.0/20", "2001:db8::/116"];

const CLOSES_AT_ONCE = 32;

/** What the process has now. */
export interface Holdings {
  readonly fds: number;
  readonly threads: number;
  readonly connections: number;
  readonly rssBytes: number;
  readonly logBytes: number;
  readonly journalBytes: number;
}

export class HostileNode {
  readonly sandbox: Sandbox;
  readonly forwarder: KillableForwarder;
  readonly cgroup: MemoryCgroup;
  readonly innocents: readonly Innocent[];
  readonly steady: Steady;
  readonly limitBytes: number;
  readonly #manager: RpcClient;
  /** Calls that the manager had sent on when it last forgot attackers. */
  #forwardedBefore = 0;

  private constructor(
    parts: Pick<HostileNode, "sandbox" | "forwarder" | "cgroup" | "innocents" | "steady" | "limitBytes">,
  ) {
    this.sandbox = parts.sandbox;
    this.forwarder = parts.forwarder;
    this.cgroup = parts.cgroup;
    this.innocents = parts.innocents;
    this.steady = parts.steady;
    this.limitBytes = parts.limitBytes;
    const { tls, headers: credentials } = parts.sandbox.actor("nsmgr");
    this.#manager = new RpcClient({ tls, credentials, log: silentLog, clock, dialTimeoutMs: 30_000, idleMs: 60_000 });
  }

  /**
   * @param program the sandbox's forwarder, bundled as it is shipped
   * @param openFiles RLIMIT_NOFILE of its process; ours by default
   */
  static async open(limitMib: number, program: string, openFiles?: number): Promise<HostileNode> {
    const limitBytes = limitMib * MIB;
    const machine = { realLinks: true, pfs: PFS, vfsPerPf: VFS_PER_PF };
    const sandbox = await Sandbox.start({
      machine,
      endpoint: { context: macPerConnection, prefixes: PREFIXES },
      log: silentLog,
      clock,
    });
    const cgroup = MemoryCgroup.create(limitBytes);
    const logFile = `${sandbox.folder}/forwarder.log`;
    const fewFiles = openFiles === undefined ? [] : ["sh", "-ec", `ulimit -n ${openFiles}; exec "$@"`, "sh"];
    const starter = [...cgroup.starter, ...fewFiles];
    const forwarder = new KillableForwarder(sandbox, { program, logFile, starter, flags: heapFlags(limitBytes) });
    try {
      await forwarder.started;
      const isOffered = (devices: readonly { healthy: boolean }[]) =>
        devices.filter(({ healthy }) => healthy).length === PFS * VFS_PER_PF;
      await sandbox.kubelet.until(SANDBOX_RESOURCE, isOffered);
      const warm = await sandbox.startPod("warm");
      const fresh = await sandbox.startPod("fresh");
      const innocents = [
        new Innocent("warm", warm, () => warm.client),
        new Innocent("fresh", fresh, () =>
          sandbox.directClientOf(fresh, `unix://${sandbox.folder}/state/forwarder.sock`),
        ),
      ];
      const done = AbortSignal.abort();
      for (const innocent of innocents) await innocent.live(done);
      const steady = new Steady(await sandbox.startPod("steady"));
      return new HostileNode({ sandbox, forwarder, cgroup, innocents, steady, limitBytes });
    } catch (error) {
      await forwarder.kill();
      await sandbox.stop();
      cgroup.close();
      throw error;
    }
  }

  get pid(): number {
    return this.forwarder.pid ?? assert.fail("the forwarder's process was never started");
  }

  get socket(): string {
    return `${this.sandbox.folder}/state/forwarder.sock`;
  }

  get service(): string {
    return SANDBOX_SERVICE;
  }

  get log(): string {
    return readFileSync(`${this.sandbox.folder}/forwarder.log`, "utf8");
  }

  get admin(): { readonly host: string; readonly port: number } {
    const [, url = assert.fail("no status page in the log")] = /"url":"(http:[^"]+)"/.exec(this.log) ?? [];
    const { hostname, port } = new URL(url);
    return { host: hostname, port: Number(port) };
  }

  get fds(): number {
    return readdirSync(`/proc/${this.pid}/fd`).length;
  }

  get threads(): number {
    return readdirSync(`/proc/${this.pid}/task`).length;
  }

  /** Processor time that it has had, in ms: what else runs on the machine has no part in it. */
  get cpuMs(): number {
    // After the name, which may hold blanks: utime and stime are the fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
    const fields = readFileSync(`/proc/${this.pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
    return (Number(fields[11]) + Number(fields[12])) * 10;
  }

  /** What it has in memory at most since `forgetPeak`. */
  get peakRssBytes(): number {
    return this.#status("VmHWM");
  }

  forgetPeak(): void {
    this.cgroup.forgetPeak();
    writeFileSync(`/proc/${this.pid}/clear_refs`, "5");
  }

  get journalBytes(): number {
    return statSync(`${this.sandbox.folder}/state/journal`, { throwIfNoEntry: false })?.size ?? 0;
  }

  async holdings(): Promise<Holdings> {
    const { connections } = await this.forwarder.inventory();
    const { folder } = this.sandbox;
    return {
      fds: this.fds,
      threads: this.threads,
      connections,
      rssBytes: this.#status("VmRSS"),
      logBytes: statSync(`${folder}/forwarder.log`).size,
      journalBytes: this.journalBytes,
    };
  }

  /** As a manager does for clients whose tokens have ended, and a registry for endpoints: these keep no such time. */
  async forgetAttackers(): Promise<void> {
    const { nsmgr } = this.sandbox;
    for (const { endpoint } of nsmgr.registry.endpoints.all()) {
      if (endpoint.name.startsWith(EVIL)) nsmgr.registry.removeEndpoint(endpoint.name);
    }
    const sent = new Map(
      nsmgr.forwarded.slice(this.#forwardedBefore).map(({ connection }) => [connection.id, connection]),
    );
    this.#forwardedBefore = nsmgr.forwarded.length;
    const foreign = [...sent.values()].filter(({ path }) => path?.pathSegments[0]?.name === EVIL);
    while (foreign.length > 0 && (await this.forwarder.inventory()).connections > 0) {
      await Promise.all(foreign.splice(0, CLOSES_AT_ONCE).map((connection) => this.#close(connection)));
    }
  }

  async #close(connection: Connection): Promise<void> {
    // So many short streams are an attack themselves, after which the forwarder ends the connection: the next is over a new one.
    const onward = await this.#segmentsBeyond(connection.id).catch(() => this.#segmentsBeyond(connection.id));
    if (onward.length === 0 || !connection.path) return;
    connection.path.pathSegments.splice(2, Number.POSITIVE_INFINITY, ...onward);
    const [client] = connection.path.pathSegments;
    if (client) client.token = this.#renewed(client.token);
    // Its endpoint has gone with the attacker, which is an error of the Close and no reason to keep the connection.
    await this.sandbox.nsmgr.query(SANDBOX_FORWARDER, NetworkService.method.close, connection).catch(() => {});
  }

  /** The one that it had may have ended by now. */
  #renewed(token: string): string {
    const { spire } = this.sandbox;
    const path = readToken(token).sub.slice(spire.idOf("").length);
    return this.sandbox.actor(path).token(spire.idOf("nsmgr")).token;
  }

  /** What the forwarder has of a connection behind the manager's segment. One by one: all would be too long for one message. */
  async #segmentsBeyond(id: string): Promise<PathSegment[]> {
    const segments = [{ name: this.sandbox.nsmgr.name, id }];
    const record = new MonitorRecord({ client: this.#manager, target: `unix://${this.socket}`, segments, clock });
    try {
      const { connections } = await record.next(({ type }) => type === ConnectionEventType.INITIAL_STATE_TRANSFER);
      return Object.values(connections).flatMap(({ path }) => path?.pathSegments.slice(2) ?? []);
    } finally {
      record.stop();
    }
  }

  #status(field: string): number {
    const [, kib] =
      new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(readFileSync(`/proc/${this.pid}/status`, "utf8")) ?? [];
    return Number(kib ?? 0) * 1024;
  }

  async close(): Promise<void> {
    await this.#manager.close();
    await this.forwarder.kill();
    await this.sandbox.stop();
    this.cgroup.close();
  }
}

/** What the program gives itself when it starts; this one is started by another. */
function heapFlags(memoryBytes: number): readonly string[] {
  const oldSpaceMib = fittingOldSpace({ heapLimitBytes: Number.POSITIVE_INFINITY, memoryBytes });
  return oldSpaceMib === undefined ? [] : [`--max-old-space-size=${oldSpaceMib}`];
}

/** More of them than the sandbox's own have bytes for. */
function macPerConnection({ id }: Connection): DesiredContext {
  const own = createHash("sha256").update(id).digest("hex").slice(0, 10);
  return { ethernet: { srcMac: `0a${own}`.replace(/..(?=.)/g, "$&:"), vlanTag: SANDBOX_VLAN } };
}
