// What iproute2 sees in a network namespace: a second opinion, which shares no code with ours.
import { execFile, execFileSync, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import type { Netns } from "../../../src/kernel/index.ts";
import { until } from "../../scenes/until.ts";

const run = promisify(execFile);

/** Everything, in the kernel's order, without what changes by itself. */
export interface IpDump {
  readonly links: readonly Row[];
  readonly addresses: readonly Row[];
  readonly routes: readonly string[];
  readonly rules: readonly string[];
  /** Permanent ones. */
  readonly neighbours: readonly string[];
}

/** One entry of `ip -json`. */
export type Row = Readonly<Record<string, unknown>>;

const COMMANDS = [
  "ip -json -details link",
  "ip -json address",
  "ip -4 -o route show table all",
  "ip -6 -o route show table all",
  "ip -4 -o rule",
  "ip -6 -o rule",
  "ip -o neighbour show nud permanent",
];

/** All tables of one namespace; of this process's own by default. */
export async function ipDump(netns?: Netns): Promise<IpDump> {
  const script = COMMANDS.join("; echo ----; ");
  const { stdout } = await run(...inNetns(netns, ["sh", "-ec", script]), { maxBuffer: 1e8 });
  const [links = "", addresses = "", ...texts] = stdout.split("----\n");
  const [routes4 = [], routes6 = [], rules4 = [], rules6 = [], neighbours = []] = texts.map(linesOf);
  return {
    links: rowsOf(links),
    addresses: rowsOf(addresses),
    routes: [...routes4, ...routes6].filter((route) => !route.startsWith("local fe80:")).sort(),
    rules: [...rules4, ...rules6.map((rule) => `IPv6 ${rule}`)],
    neighbours: neighbours.sort(),
  };
}

/** A network device that is made again, after a client or by its card, has other indexes; iproute2 lists by those. */
export function withoutIndexes(dump: unknown): unknown {
  const indexes = new Set(["ifindex", "link_index", "wireEnd"]);
  const nameOf = (row: unknown) => String((row as Row)?.["ifname"]);
  const isOfLinks = (value: unknown): value is unknown[] =>
    Array.isArray(value) && value.every((row) => (row as Row)?.["ifname"]);
  return JSON.parse(
    JSON.stringify(dump, (key, value) => (indexes.has(key) ? undefined : value)),
    (_key, value) => (isOfLinks(value) ? value.sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1)) : value),
  );
}

/** Runs iproute2 in the namespace: `ip(netns, "link set lo up")`. */
export const ip = (netns: Netns | undefined, command: string): Promise<string> => runIn(netns, `ip ${command}`);

/** The same with its traffic control: `tc(netns, "qdisc show")`. */
export const tc = (netns: Netns | undefined, command: string): Promise<string> => runIn(netns, `tc ${command}`);

async function runIn(netns: Netns | undefined, command: string): Promise<string> {
  const [file, args] = inNetns(netns, command.split(" "));
  return (await run(file, args)).stdout;
}

/** The same, done on return: for the middle of another's work. */
export function ipNow(netns: Netns | undefined, command: string): void {
  const [file, args] = inNetns(netns, ["ip", ...command.split(" ")]);
  execFileSync(file, args);
}

/** Writes down each change of links, addresses, routes, rules and permanent neighbours that the kernel reports. */
export class IpMonitor {
  readonly #netns: Netns | undefined;
  readonly #child;
  readonly #lines: string[] = [];
  #wake: () => void = () => {};
  #marks = 0;

  constructor(netns?: Netns) {
    this.#netns = netns;
    const [file, args] = inNetns(netns, ["ip", "-o", "monitor", "link", "address", "route", "rule", "neigh"]);
    this.#child = spawn(file, args, { stdio: ["ignore", "pipe", "ignore"] });
    createInterface(this.#child.stdout).on("line", (line) => {
      this.#lines.push(line.trim());
      this.#wake();
    });
  }

  /** What was reported since the last call, without the marks that prove that nothing is missing; empty the first time. */
  async news(): Promise<readonly string[]> {
    // A rule of our own comes through the same socket: all that happened before it has been reported when it arrives.
    const mark = `lookup ${++this.#marks + 4_000_000}`;
    const rule = (verb: string) => ip(this.#netns, `rule ${verb} priority 32000 ${mark}`);
    const turn = async () => {
      await rule("add");
      await rule("del");
    };
    await turn();
    await until("ip monitor reports the mark", () => this.#hears(mark), { turn });
    const news = this.#lines.splice(0);
    return this.#marks === 1 ? [] : news.filter((line) => !line.includes("lookup 400") && !isOfKernel(line));
  }

  async close(): Promise<void> {
    const gone = new Promise((resolve) => this.#child.once("close", resolve));
    this.#child.kill();
    await gone;
  }

  async #hears(mark: string): Promise<boolean> {
    const endsAt = performance.now() + 200; // the monitor may have started after the mark was set
    const isDeleted = (line: string) => line.startsWith("Deleted") && line.includes(mark);
    while (!this.#lines.some(isDeleted) && performance.now() < endsAt) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      const timer = setTimeout(resolve, 50);
      await promise;
      clearTimeout(timer);
    }
    return this.#lines.some(isDeleted);
  }
}

/**
 * The kernel gives each link a link-local address, and reports it once its trial is over, a second after the link has come up. It also
 * learns and forgets neighbours.
 */
function isOfKernel(line: string): boolean {
  return /\b(inet6|local) fe80:/.test(line) || /\b(REACHABLE|STALE|DELAY|PROBE|FAILED|INCOMPLETE|NOARP)$/.test(line);
}

function inNetns(netns: Netns | undefined, command: readonly string[]): [string, string[]] {
  const [file = "", ...args] = command;
  if (!netns) return [file, args];
  return ["nsenter", [`--net=/proc/${process.pid}/fd/${netns.fd.number}`, "--", ...command]];
}

function linesOf(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

/** Without the kernel's trial of its own link-local addresses, which ends a second after a link has come up. */
function rowsOf(json: string): readonly Row[] {
  return JSON.parse(json.trim() === "" ? "[]" : json, (key, value) => (key === "tentative" ? undefined : value));
}
