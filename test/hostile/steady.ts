import { isDeepStrictEqual } from "node:util";
import type { SandboxPod } from "../../sandbox/sandbox.ts";
import type { Segment } from "./attacker/target.ts";

const CALL_TIMEOUT_MS = 15_000;

/** A pod that keeps its connection while it is attacked. */
export class Steady {
  readonly #pod: SandboxPod;
  #path: readonly Segment[] = [];
  #link: unknown;

  constructor(pod: SandboxPod) {
    this.#pod = pod;
  }

  /** Answers with the path of its connection. */
  async begin(): Promise<readonly Segment[]> {
    this.#path = await this.#request();
    this.#link = await this.#pod.pod.link("nsm-1");
    return this.#path;
  }

  /** What has become of its connection; it is closed then. */
  async end(log: string): Promise<readonly string[]> {
    const problems: string[] = [];
    const link = await this.#pod.pod.link("nsm-1");
    if (!isDeepStrictEqual(link, this.#link))
      problems.push(`the pod's link was ${inText(this.#link)}, is ${inText(link)}`);
    // The attacker's own has the id with a number.
    const own = `"connection":${inText(this.#path[2]?.id)},`;
    const ended = log.split("\n").find((line) => line.includes('"connection-ended"') && line.includes(own));
    if (ended !== undefined) problems.push(`the connection was ended: ${ended}`);
    try {
      const path = await this.#request();
      if (!isDeepStrictEqual(path, this.#path)) problems.push(`the path was ${inText(this.#path)}, is ${inText(path)}`);
      await this.#pod.client.close({ timeoutMs: CALL_TIMEOUT_MS });
    } catch (error) {
      problems.push(`the pod that has the connection is not served: ${String(error)}`);
    }
    return problems;
  }

  async #request(): Promise<readonly Segment[]> {
    const { path } = await this.#pod.client.request({ timeoutMs: CALL_TIMEOUT_MS });
    return (path?.pathSegments ?? []).map(({ name, id }) => ({ name, id }));
  }
}

const inText = (value: unknown) => JSON.stringify(value);
