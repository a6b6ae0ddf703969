import type { Clock } from "../../src/async/index.ts";
import type { Forwarder } from "../../src/forwarder.ts";
import { Sandbox, type SandboxOptions, type SandboxPod } from "../sandbox.ts";
import type { NodePicture } from "./node-picture.ts";
import { NotSo } from "./steps.ts";

/** What the steps of the demo share: each leaves here what later ones look at. */
export class Stage {
  readonly clock: Clock;
  readonly #options: SandboxOptions;
  /** In the order they came. */
  readonly pods: SandboxPod[] = [];
  #sandbox: Sandbox | undefined;
  #before: NodePicture | undefined;
  #forwarder: Promise<Forwarder> | undefined;
  #forwarderFailure: unknown;

  constructor(options: SandboxOptions & { readonly clock: Clock }) {
    this.#options = options;
    this.clock = options.clock;
  }

  async open(): Promise<Sandbox> {
    this.#sandbox = await Sandbox.start(this.#options);
    return this.#sandbox;
  }

  /** @throws when no step has opened it. */
  get sandbox(): Sandbox {
    if (this.#sandbox === undefined) throw new NotSo("a node that is up", "none");
    return this.#sandbox;
  }

  /** The node as it was before the first Request. */
  get before(): NodePicture {
    if (this.#before === undefined) throw new NotSo("a picture of the node before", "none");
    return this.#before;
  }

  set before(picture: NodePicture) {
    this.#before = picture;
  }

  /** Starts the forwarder without waiting: the next steps watch from outside what it does meanwhile. */
  beginForwarder(): void {
    this.#forwarder = this.sandbox.startForwarder();
    this.#forwarder.catch((error: unknown) => {
      this.#forwarderFailure = error;
    });
  }

  /** Nothing to wait for any more when the forwarder could not start. */
  throwIfForwarderFailed(): void {
    if (this.#forwarderFailure !== undefined) throw this.#forwarderFailure;
  }

  /** The forwarder as soon as it serves. */
  forwarder(): Promise<Forwarder> {
    if (this.#forwarder === undefined) throw new NotSo("a forwarder that was started", "none");
    return this.#forwarder;
  }

  /** The pod that came first, second … @throws when it did not come. */
  pod(at: number): SandboxPod {
    const pod = this.pods[at];
    if (pod === undefined) throw new NotSo(`${at + 1} pods`, `${this.pods.length}`);
    return pod;
  }

  async close(): Promise<void> {
    await this.#sandbox?.stop();
    this.#sandbox = undefined;
  }
}
