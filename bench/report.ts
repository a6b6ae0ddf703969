import type { HostileFigures } from "./hostile.ts";
import { hostileKeys } from "./hostile-report.ts";
import type { KubeletFigures } from "./kubelet.ts";
import { type BusyFigures, type CallFigures, EMULATED_NETDEV_MS, type ParallelFigures } from "./measure.ts";
import type { StartFigures } from "./stage.ts";
import { type Distribution, distributionOf } from "./statistics.ts";
import { ms, timeText } from "./time-text.ts";

/** What was measured on a node of one size; absent where it was not. */
export interface NodeFigures {
  readonly vfs: number;
  readonly starts: readonly StartFigures[];
  readonly rssIdleMib: number;
  readonly cpuIdleMsPerS?: number;
  readonly one?: CallFigures;
  readonly many?: BusyFigures;
  readonly parallel?: ParallelFigures;
  readonly refreshWrites?: number;
  /** From a Close's answer until the VF is free, with a driver that needs `EMULATED_NETDEV_MS`. */
  readonly untilFree?: Distribution;
  /** With every VF in use. */
  readonly full?: { readonly calls: CallFigures; readonly rssMib: number };
}

/** What was measured between kubelet and a forwarder with so many VFs, each with so many resource names. */
export interface NamedKubeletFigures extends KubeletFigures {
  readonly vfs: number;
  readonly names: number;
}

/** The machine that the figures are of. */
export interface MachineLine {
  readonly cpus: number;
  readonly cpuModel: string;
  readonly kernel: string;
  readonly node: string;
  readonly links: string;
  /** Of the last minute before the first measurement: beyond the number of CPUs, times are those of a busy machine. */
  readonly loadAverage: number;
}

/** The report as JSON has it: figures that were not measured are left out. */
export type Report = Readonly<Record<string, unknown>>;

/** The node that the report's plain keys are of; other sizes are under `by_vfs`. */
const MAIN_VFS = 64;

/** Puts the figures under the names that others read. Times in ms, memory in MiB. */
export function reportOf(
  machine: MachineLine,
  nodes: readonly NodeFigures[],
  more: {
    readonly kubelet: readonly NamedKubeletFigures[];
    readonly recovery: Distribution | undefined;
    readonly hostile?: HostileFigures | undefined;
  },
): Report {
  const kubelet = more.kubelet.find(({ vfs }) => vfs === MAIN_VFS);
  const of = (vfs: number) => nodes.find((node) => node.vfs === vfs);
  const [small, main, large] = [of(8), of(MAIN_VFS), of(256)];
  return rounded({
    machine,
    ...(main && callKeys(main)),
    ...(main?.parallel && {
      parallel_64_total_ms: main.parallel.totalMs,
      parallel_64_slowest_ms: main.parallel.slowestMs,
    }),
    ...(small?.one && large?.full && { request_cost_ratio_8_to_256: costRatio(small.one, large.full.calls) }),
    ...(small?.untilFree && { close_to_free_ms: small.untilFree, close_to_free_driver_ms: EMULATED_NETDEV_MS }),
    ...(small && { start_to_registered_ms: startToRegistered(small) }),
    ...(large && { rss_idle_mib: large.rssIdleMib }),
    ...(large?.cpuIdleMsPerS !== undefined && { cpu_idle_ms_per_s: large.cpuIdleMsPerS }),
    ...(large?.full && { rss_256_connections_mib: large.full.rssMib }),
    ...(kubelet && { kubelet_restart_ms: kubelet.restart, fault_to_kubelet_ms: kubelet.fault }),
    ...(more.recovery && { recovery_ms: more.recovery }),
    ...(more.hostile && { hostile: hostileKeys(more.hostile) }),
    by_names: Object.fromEntries(more.kubelet.map((one) => [`${one.vfs}x${one.names}`, kubeletKeys(one)])),
    by_vfs: Object.fromEntries(nodes.map((node) => [node.vfs, nodeKeys(node)])),
  }) as Report;
}

function kubeletKeys({ restart, fault, allocate, allocateCpuMs, listsPerAllocate }: KubeletFigures): Report {
  return {
    kubelet_restart_ms: restart,
    fault_to_kubelet_ms: fault,
    allocate_ms: allocate,
    allocate_cpu_ms: allocateCpuMs,
    lists_per_allocate: listsPerAllocate,
  };
}

function nodeKeys(node: NodeFigures): Report {
  return {
    ...callKeys(node),
    start_to_registered_ms: startToRegistered(node),
    start_load_ms: distributionOf(node.starts.map(({ loadMs }) => loadMs)),
    start_to_kubelet_ms: distributionOf(node.starts.map(({ loadMs, toKubeletMs }) => loadMs + toKubeletMs)),
    rss_idle_mib: node.rssIdleMib,
    ...(node.full && {
      request_first_full_ms: node.full.calls.request,
      refresh_unchanged_full_ms: node.full.calls.refresh,
      close_full_ms: node.full.calls.close,
      rss_full_mib: node.full.rssMib,
    }),
  };
}

function callKeys({ one, many, refreshWrites }: NodeFigures): Report {
  return {
    ...(one && { request_first_ms: one.request, refresh_unchanged_ms: one.refresh, close_ms: one.close }),
    ...(refreshWrites !== undefined && { refresh_unchanged_kernel_writes: refreshWrites }),
    ...(many && {
      request_first_32_ms: many.request,
      refresh_unchanged_32_ms: many.refresh,
      close_32_ms: many.close,
      event_loop_delay_32_ms: many.loopDelay,
    }),
  };
}

/** From the start of the process; the card is made between the two parts and is not counted. */
function startToRegistered({ starts }: NodeFigures): Distribution {
  return distributionOf(starts.map(({ loadMs, startMs }) => loadMs + startMs));
}

/** One whole life of a connection: Request, refresh and Close. */
function costRatio(few: CallFigures, many: CallFigures): number {
  const cost = ({ request, refresh, close }: CallFigures) => request.p50 + refresh.p50 + close.p50;
  return cost(many) / cost(few);
}

/** To a hundredth, in numbers at any depth: more would only pretend to be exact. */
export function rounded(value: unknown): unknown {
  if (typeof value === "number") return Math.round(value * 100) / 100;
  if (Array.isArray(value)) return value.map(rounded);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, rounded(inner)]));
}

/** The same figures as a table: one row for each measure, one column for each size of the node. */
export function tableOf(nodes: readonly NodeFigures[]): {
  readonly headings: readonly string[];
  readonly rows: readonly (readonly string[])[];
} {
  const row = (title: string, cell: (node: NodeFigures) => string | undefined) => [
    title,
    ...nodes.map((node) => cell(node) ?? "–"),
  ];
  const rows = [
    row("first Request", ({ one }) => timeText(one?.request)),
    row("unchanged refresh", ({ one }) => timeText(one?.refresh)),
    row("Close", ({ one }) => timeText(one?.close)),
    row("first Request, 32 at a time", ({ many }) => timeText(many?.request)),
    row("refresh, 32 at a time", ({ many }) => timeText(many?.refresh)),
    row("Close, 32 at a time", ({ many }) => timeText(many?.close)),
    row("  event loop late, p99 / max", ({ many }) => many && `${ms(many.loopDelay.p99)} / ${ms(many.loopDelay.max)}`),
    row("64 first Requests, total", ({ parallel }) => parallel && ms(parallel.totalMs)),
    row("64 first Requests, slowest", ({ parallel }) => parallel && ms(parallel.slowestMs)),
    row("first Request, all VFs in use", ({ full }) => timeText(full?.calls.request)),
    row("refresh, all VFs in use", ({ full }) => timeText(full?.calls.refresh)),
    row("Close, all VFs in use", ({ full }) => timeText(full?.calls.close)),
    row(`Close until free, driver ${EMULATED_NETDEV_MS} ms`, ({ untilFree }) => timeText(untilFree)),
    row("kernel writes of a refresh", ({ refreshWrites }) => refreshWrites?.toString()),
    row("start until registered", (node) => timeText(startToRegistered(node))),
    row("CPU, idle, a second", ({ cpuIdleMsPerS }) => cpuIdleMsPerS?.toFixed(1)),
    row("memory, idle", ({ rssIdleMib }) => `${rssIdleMib.toFixed(1)} MiB`),
    row("memory, all VFs in use", ({ full }) => full && `${full.rssMib.toFixed(1)} MiB`),
  ];
  return { headings: ["ms: p50 / p99", ...nodes.map(({ vfs }) => `${vfs} VFs`)], rows };
}

/** What kubelet and a kill cost, as a table. */
export function kubeletTable(
  kubelet: readonly NamedKubeletFigures[],
  recovery: Distribution | undefined,
): { readonly headings: readonly string[]; readonly rows: readonly (readonly string[])[] } {
  const row = (title: string, cell: (figures: NamedKubeletFigures) => string | undefined) => [
    title,
    ...kubelet.map((figures) => cell(figures) ?? "–"),
  ];
  return {
    headings: ["ms: p50 / p99", ...kubelet.map(({ vfs, names }) => `${vfs} VFs × ${names} names`)],
    rows: [
      row("kubelet restart until the full list", ({ restart }) => timeText(restart)),
      row("fault until kubelet knows", ({ fault }) => timeText(fault)),
      row("a device for a pod", ({ allocate }) => timeText(allocate)),
      row("  CPU of the forwarder for it", ({ allocateCpuMs }) => ms(allocateCpuMs)),
      row("  lists sent for it", ({ listsPerAllocate }) => listsPerAllocate.toFixed(1)),
      row("SIGKILL until a client is served again", ({ vfs }) => (vfs === MAIN_VFS ? timeText(recovery) : undefined)),
    ],
  };
}
