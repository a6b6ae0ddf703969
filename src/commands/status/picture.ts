import {
  type ConnectionView,
  type NodeView,
  type PfView,
  problemCounts,
  problemsOf,
  type VfView,
  vfStates,
} from "../../admin/index.ts";
import type { Terminal } from "../command.ts";
import { type Painter, painter } from "../paint.ts";
import { type Cell, table } from "../table.ts";
import { counted, durationText, printable, wrap } from "../text.ts";

interface PictureOptions {
  /** Also VFs that are idle and well, and all latest warnings. */
  readonly isWhole: boolean;
}

/** Only the newest of the warnings: the status page and the log have them all. */
const TROUBLES_SHOWN = 5;

/** The node for the operator: what is wrong first, then its VFs, who has them, and what kubelet is offered. */
export function pictureText(view: NodeView, terminal: Terminal, { isWhole }: PictureOptions): string {
  const paint = painter(terminal);
  const form = { columns: terminal.isScreen ? terminal.columns : undefined, paintHead: paint.dim };
  const parts = [
    headLines(view, paint),
    conditionLines(view, terminal),
    section("Physical functions", pfTable(view, form, paint), paint),
    section("Virtual functions", vfTable(view, isWhole, { form, paint }), paint),
    section("Connections", connectionTable(view, form, paint), paint),
    section("Offered to kubelet", resourceTable(view, form), paint),
    section("Latest warnings", troubleTable(view, isWhole, { form, paint }), paint),
  ];
  return `${parts
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join("\n"))
    .join("\n\n")}\n`;
}

interface Form {
  readonly columns: number | undefined;
  readonly paintHead: (text: string) => string;
}

function section(title: string, lines: readonly string[], paint: Painter): readonly string[] {
  return lines.length === 0 ? [] : [paint.bold(title), ...lines];
}

function headLines({ name, version, isReady, startedMs, seenMs, identity }: NodeView, paint: Painter): string[] {
  const state = isReady ? paint.good("ready") : paint.bad("NOT READY");
  const first = `${paint.bold(printable(name))} ${version}, ${state}, running for ${durationText(seenMs - startedMs)}`;
  if (!identity) return [first];
  const left = identity.expiresMs - seenMs;
  const end = left > 0 ? `for another ${durationText(left)}` : paint.bad(`expired ${durationText(-left)} ago`);
  return [first, `${printable(identity.spiffeId)}, ${end}`];
}

function conditionLines({ conditions, seenMs }: NodeView, terminal: Terminal): readonly string[] {
  const paint = painter(terminal);
  return conditions.flatMap(({ code, subject, severity, sentence, sinceMs, causedBy }) => {
    const color = severity === "blocking" ? paint.bad : paint.doubtful;
    const name = [code, subject].filter((part) => part !== undefined).join(" ");
    const follows = causedBy.length > 0 ? ` (follows from ${causedBy.join(", ")})` : "";
    const since = `for ${durationText(seenMs - sinceMs)}`;
    const lines = wrap(`${sentence}${follows}`, terminal.columns - 10);
    return [
      `${color(severity.padEnd(8))}  ${paint.bold(printable(name))}, ${since}`,
      ...lines.map((text) => `${" ".repeat(10)}${text}`),
    ];
  });
}

const address = (text: string | undefined): Cell => ({ text: text ?? "", isWhole: true });
const plain = (text: string | number | undefined): Cell => ({ text: text === undefined ? "" : String(text) });

function pfTable({ pfs }: NodeView, form: Form, paint: Painter): readonly string[] {
  if (pfs.length === 0) return ["none is configured; see forwarder discover"];
  const heads = ["PF", "device", "driver", "carrier", "NUMA", "VFs", "resources"];
  const carrierPaint = { up: paint.good, down: paint.bad, unknown: paint.dim };
  const rows = pfs.map((pf) => [
    address(pf.address),
    plain(pf.ifname),
    plain(pf.driver),
    { text: pf.carrier, paint: carrierPaint[pf.carrier] },
    plain(pf.numaNode),
    plain(stateCounts(pf)),
    plain(pf.resources.join(", ")),
  ]);
  const problems = pfs.flatMap(({ address, problem }) => (problem === undefined ? [] : `${address}: ${problem}`));
  return [...table(heads, rows, form), ...problemLines(problems, form, paint)];
}

/** Under the table, where there is room for whole sentences. */
function problemLines(
  problems: readonly string[],
  { columns = Number.POSITIVE_INFINITY }: Form,
  paint: Painter,
): readonly string[] {
  return problems.flatMap((text) => wrap(text, columns).map(paint.bad));
}

/** "8: 5 idle, 2 ready, 1 quarantined; 1 without carrier". */
function stateCounts({ vfs }: PfView): string {
  const counts = vfStates.map((state) => ({ state, count: vfs.filter((vf) => vf.state === state).length }));
  const shown = counts.filter(({ count }) => count > 0).map(({ state, count }) => `${count} ${state}`);
  const problems = problemCounts(vfs).map(({ label, count }) => `; ${count} ${label}`);
  return shown.length > 0 ? `${vfs.length}: ${shown.join(", ")}${problems.join("")}` : "0";
}

function vfTable(
  { pfs }: NodeView,
  isWhole: boolean,
  { form, paint }: { readonly form: Form; readonly paint: Painter },
): readonly string[] {
  const all = pfs.flatMap((pf) => pf.vfs.map((vf) => ({ vf, pf })));
  const shown = all.filter(({ vf }) => isWhole || vf.state !== "idle" || problemsOf(vf).length > 0);
  const left = all.length - shown.length;
  const rest = left === 0 ? [] : [paint.dim(`${left} more, idle and well (--all shows them)`)];
  if (shown.length === 0) return rest;
  const heads = ["VF", "of", "state", "driver", "group", "NUMA", "pod", "connection"];
  const rows = shown.map(({ vf, pf }) => [
    address(vf.address),
    plain(`${pf.ifname ?? pf.address} ${vf.index}`),
    { text: vf.state, paint: statePaint(vf, paint) },
    plain(vf.driver ?? "none"),
    plain(vf.iommuGroup),
    plain(vf.numaNode),
    plain(vf.pod),
    plain(vf.connection),
  ]);
  // What is so of all of them is under their PF.
  const own = shown.flatMap(({ vf }) =>
    problemsOf(vf).flatMap(({ code, text }) => (code.startsWith("pf-") ? [] : `${vf.address}: ${text}`)),
  );
  const problems = problemLines(own, form, paint);
  return [...table(heads, rows, form), ...problems, ...rest];
}

function statePaint(vf: VfView, paint: Painter): (text: string) => string {
  if (problemsOf(vf).length > 0) return paint.bad;
  const paints = {
    idle: paint.dim,
    reserved: paint.doubtful,
    preparing: paint.doubtful,
    ready: paint.good,
    reclaiming: paint.doubtful,
    quarantined: paint.bad,
  } as const satisfies Record<VfView["state"], unknown>;
  return paints[vf.state];
}

function connectionTable({ connections, seenMs }: NodeView, form: Form, paint: Painter): readonly string[] {
  if (connections.length === 0) return [];
  const heads = ["connection", "phase", "mechanism", "VF", "client", "pod", "service", "endpoint", "ends in"];
  const rows = connections.map((one) => [
    plain(one.id),
    plain(one.phase),
    plain(one.mechanism),
    address(one.vf),
    plain(one.client),
    plain(one.pod),
    plain(one.networkService),
    plain(one.endpoint),
    expiryCell(one, seenMs, paint),
  ]);
  return table(heads, rows, form);
}

function expiryCell({ expiresMs }: ConnectionView, seenMs: number, paint: Painter): Cell {
  if (expiresMs === undefined) return { text: "" };
  const left = expiresMs - seenMs;
  return left > 0 ? { text: durationText(left) } : { text: "is over", paint: paint.bad };
}

function resourceTable({ resources }: NodeView, form: Form): readonly string[] {
  if (resources.length === 0) return [];
  const heads = ["resource", "total", "in use", "free", "unavailable"];
  const rows = resources.map(({ name, total, inUse, free, unavailable }) => [
    plain(name),
    plain(total),
    plain(inUse),
    plain(free),
    plain(unavailable),
  ]);
  return table(heads, rows, form);
}

function troubleTable(
  { troubles, seenMs }: NodeView,
  isWhole: boolean,
  { form, paint }: { readonly form: Form; readonly paint: Painter },
): readonly string[] {
  const shown = isWhole ? troubles : troubles.slice(0, TROUBLES_SHOWN);
  if (shown.length === 0) return [];
  const rows = shown.map(({ atMs, level, event, text }) => [
    plain(`${durationText(seenMs - atMs)} ago`),
    { text: level, paint: level === "error" ? paint.bad : paint.doubtful },
    plain(event),
    plain(text),
  ]);
  const left = troubles.length - shown.length;
  const rest = left === 0 ? [] : [paint.dim(`${counted(left, "older one")} (--all)`)];
  return [...table(["when", "level", "event", "details"], rows, form), ...rest];
}
