/** Who an attacker is to the forwarder: an SVID of the node's trust domain. */
export interface Identity {
  readonly spiffeId: string;
  readonly certPem: string;
  readonly keyPem: string;
}

/** The name of an attacker's segment of the path. */
export const EVIL = "evil";

/** What an attacker knows of the node. */
export interface Target {
  /** Its name in attacks.ts. */
  readonly attack: string;
  readonly way: Way;
  readonly seconds: number;
  readonly forwarder: Door;
  readonly manager: Door;
  readonly admin: { readonly host: string; readonly port: number };
  readonly service: string;
  readonly identities: readonly Identity[];
  /** Where the namespace of its pod is; empty where it has none with an interface. */
  readonly netns: string;
  /** The path of another pod's connection, which it has come to know; empty where there is none. */
  readonly pathOfOther: readonly Segment[];
}

/** Of a path. */
export interface Segment {
  readonly name: string;
  readonly id: string;
}

/** A socket, and who answers there. */
export interface Door {
  readonly socket: string;
  readonly spiffeId: string;
}

/** Whether it calls the forwarder itself, or has the manager send it on. */
export type Way = "direct" | "manager";

/** Continues until the signal, or until it has done all; answers with what it has seen, for the table. */
export type Attacker = (target: Target, signal: AbortSignal) => Promise<string>;
