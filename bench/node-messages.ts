import type { ForwarderSettings } from "../src/forwarder.ts";

/** What the bench asks the process of the forwarder. One question at a time; each is answered. */
export type Question =
  | {
      readonly kind: "start";
      readonly pfs: number;
      readonly vfsPerPf: number;
      readonly realLinks: boolean;
      /** From the bind of a VF to its network device. */
      readonly netdevDelayMs: number;
      /** Whether each physical function has 6 resource names instead of 2. */
      readonly hasManyNames: boolean;
      readonly settings: ForwarderSettings;
    }
  /** Also lets the pretend card forget what it has written down. */
  | { readonly kind: "counts" }
  /** Starts measuring how late the event loop is. */
  | { readonly kind: "watch-loop" }
  | { readonly kind: "loop" }
  /** Waits until no VF is a client's, or being cleaned after one. */
  | { readonly kind: "all-free" }
  /** Takes the first physical function from its driver, or gives it back. */
  | { readonly kind: "fault"; readonly isOver: boolean }
  | { readonly kind: "stop" };

/** The process is loaded and the manager knows the forwarder. */
export interface Started {
  /** From the start of the process until the forwarder's code was loaded. */
  readonly loadMs: number;
  /** From the call of the forwarder's start to its end. */
  readonly startMs: number;
  /** When that call was, on the clock that all processes of a machine share (process.hrtime). */
  readonly calledAtMs: number;
}

/** What has been written to the kernel since the process began, the pretend card's own netlink writes among them. */
export interface Counts {
  readonly netlinkWrites: number;
  readonly netlinkReads: number;
  readonly fileWrites: number;
}

/** How much later than planned a timer ran, in ms. */
export interface LoopDelay {
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

/** The answer to each question. */
export interface Answers {
  readonly start: Started;
  readonly counts: Counts;
  readonly "watch-loop": null;
  readonly loop: LoopDelay;
  /** Since when that is so, on the clock that all processes of a machine share. */
  readonly "all-free": number;
  /** When that was begun, on the clock that all processes of a machine share. */
  readonly fault: number;
  readonly stop: null;
}

/** An answer on its way: what was asked for, or why there is none. */
export type Reply = { readonly answer: Answers[keyof Answers] } | { readonly failure: string };
