// The process of one attacker, with all that it starts: `npm run hostile` judges what it does to a node, `npm run bench` measures it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { Identity, Target, Way } from "./attacker/target.ts";
import type { Attack } from "./attacks.ts";
import type { HostileNode } from "./hostile-node.ts";

const ATTACKER = join(import.meta.dirname, "attacker", "main.ts");

/** What the attacker is given to know. */
export function targetOf(node: HostileNode, attack: Attack, { way, seconds }: { way: Way; seconds: number }): Target {
  const { sandbox } = node;
  const { name, identities = 1 } = attack;
  const identity = (path: string): Identity => {
    const { certPem, keyPem, spiffeId } = sandbox.spire.svid(sandbox.spire.idOf(path));
    return { certPem, keyPem, spiffeId };
  };
  return {
    attack: name,
    way,
    seconds,
    forwarder: { socket: node.socket, spiffeId: sandbox.spire.idOf("forwarder") },
    manager: { socket: `${sandbox.folder}/nsm.sock`, spiffeId: sandbox.spire.idOf("nsmgr") },
    admin: node.admin,
    service: node.service,
    netns: "",
    pathOfOther: [],
    identities: Array.from({ length: identities }, (_, at) => identity(`ns/default/pod/evil-${at}`)),
  };
}

export class AttackerProcess {
  readonly #name: string;
  readonly #child;
  readonly #begun = Promise.withResolvers<void>();
  readonly #closed: Promise<[number | null]>;
  #said = "";

  constructor(target: Target) {
    const flags = ["--disable-warning=ExperimentalWarning", ATTACKER];
    this.#name = target.attack;
    this.#child = spawn(process.execPath, flags, { stdio: ["pipe", "pipe", "inherit"], detached: true });
    this.#child.stdout.on("data", (text: Buffer) => {
      this.#said += String(text);
      this.#begun.resolve();
    });
    this.#child.stdin.on("error", () => {}).end(JSON.stringify(target));
    this.#closed = once(this.#child, "close") as Promise<[number | null]>;
  }

  /** Resolves when it attacks, or has ended. */
  async begun(): Promise<void> {
    await Promise.race([this.#begun.promise, this.#closed]);
  }

  /** Resolves when it has ended. */
  async ended(): Promise<void> {
    await this.#closed;
  }

  get isOver(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** The process group that it and what it starts are in; undefined when it could not be started. */
  get group(): number | undefined {
    return this.#child.pid;
  }

  /** With what it has started. */
  kill(): void {
    try {
      if (this.group !== undefined) process.kill(-this.group, "SIGKILL");
    } catch {
      // all of it has ended
    }
  }

  /**
   * Has it end, by force after so long. Answers with the last line that it said.
   * @throws when it ended otherwise than by itself, or by that force.
   */
  async stop({ graceMs = Number.POSITIVE_INFINITY } = {}): Promise<string> {
    let isForced = false;
    const force = () => {
      isForced = true;
      this.kill();
    };
    const limit = Number.isFinite(graceMs) ? setTimeout(force, graceMs) : undefined;
    this.#child.kill("SIGTERM");
    const [code] = await this.#closed;
    clearTimeout(limit);
    this.kill();
    const last = this.#said.trim().split("\n").at(-1) ?? "";
    if (code !== 0 && !isForced)
      throw new Error(`the attacker ${this.#name} ended with ${code}, having said "${last}"`);
    return last;
  }
}
