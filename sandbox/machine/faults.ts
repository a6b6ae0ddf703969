import { Errno, KernelError, type Uevent } from "../../src/kernel/index.ts";

/** Which of the machine's file trees. */
export type Tree = "devices" | "drivers" | "vfio";

/** A write that shall go wrong. */
export interface WriteFault {
  readonly tree: Tree;
  /** The whole path beneath the tree, or a pattern of it. */
  readonly path: string | RegExp;
  /** Only writes of this text. */
  readonly text?: string;
  /** Lets so many matching writes pass first: 1 makes the second one fail. */
  readonly after?: number;
  /** Goes wrong so many times; 1 by default. */
  readonly times?: number;
}

interface Script extends WriteFault {
  seen: number;
  readonly act: () => Promise<void>;
}

/** Failures that a test writes down beforehand. */
export class Faults {
  #scripts: Script[] = [];
  #eventsToLose = 0;

  /** The kernel answers the write with an error, for example "EBUSY". */
  failWrite(fault: WriteFault & { readonly code: keyof typeof Errno }): void {
    const refuse = () => Promise.reject(new KernelError(`write ${fault.tree}/${fault.path}`, Errno[fault.code]));
    this.#scripts.push({ ...fault, seen: 0, act: refuse });
  }

  /** The write does not return, and changes nothing, until the function it gives back is called. */
  stallWrite(fault: WriteFault): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#scripts.push({ ...fault, seen: 0, act: () => promise });
    return resolve;
  }

  /** The next so many events are lost, as when the socket's buffer was full; nothing reports the loss. */
  loseUevents(count: number): void {
    this.#eventsToLose += count;
  }

  /** Forgets everything that was written down and has not happened. */
  clear(): void {
    this.#scripts = [];
    this.#eventsToLose = 0;
  }

  /** The machine asks before each write. */
  async beforeWrite(tree: Tree, path: string, text: string): Promise<void> {
    for (const script of this.#scripts) {
      if (!matches(script, { tree, path, text })) continue;
      const turn = script.seen++ - (script.after ?? 0);
      if (turn >= 0 && turn < (script.times ?? 1)) await script.act();
    }
  }

  /** The machine asks before each event. */
  isLost(_event: Uevent): boolean {
    if (this.#eventsToLose === 0) return false;
    this.#eventsToLose--;
    return true;
  }
}

function matches(
  script: Script,
  write: { readonly tree: Tree; readonly path: string; readonly text: string },
): boolean {
  if (script.tree !== write.tree || (script.text !== undefined && script.text !== write.text)) return false;
  return typeof script.path === "string" ? script.path === write.path : script.path.test(write.path);
}
