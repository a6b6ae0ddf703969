import type { ForwarderSettings } from "../../src/forwarder.ts";
import type { Disk, DiskFile, HostFiles, Link, Uevent } from "../../src/kernel/index.ts";

/** What a forwarder's process asks of the process that has its node. */
export type NodeRequest =
  | {
      readonly kind: "files";
      readonly tree: "devices" | "drivers" | "vfio";
      readonly method: keyof HostFiles;
      readonly args: readonly unknown[];
    }
  | { readonly kind: "port"; readonly pf: string; readonly method: "read" | "write"; readonly args: readonly unknown[] }
  /** Of the disk, when it is not the process's own. */
  | { readonly kind: "disk"; readonly method: keyof Disk; readonly args: readonly unknown[] }
  | { readonly kind: "file"; readonly file: number; readonly method: keyof DiskFile; readonly args: readonly unknown[] }
  /** Which VF has a link, in the namespace of which the process has that descriptor. */
  | { readonly kind: "owner"; readonly netnsFd: number; readonly link: Link }
  /** For a call with that trace it is about to do something, or has done it, and waits. */
  | { readonly kind: "step"; readonly call: string; readonly what: string };

export interface StartRequest {
  readonly settings: ForwarderSettings;
  readonly pfConfigText: string;
  /** For NSM_CGROUP_PATH. */
  readonly cgroupPath: string;
  /** Whether the network devices of the node are links, and not only names. */
  readonly hasLinks: boolean;
  /** Whether what outlives the process is kept by the one that started it, and not in files. */
  readonly isDiskOfParent: boolean;
  /** Of the machine. */
  readonly lockFolder: string;
  readonly trial?: PhaseTrial;
}

/** Something that goes wrong at the phase of this number, counted from 1. */
export interface PhaseTrial {
  readonly phase: number;
  readonly how: /** The node answers no read any more. */
    | "node-silent"
    /** The same, and what holds the event loop is taken away. */
    | "loop-empty"
    /** A part of the program ends the process. */
    | "exit";
}

/** What the inventory of the forwarder says. */
export interface InventoryView {
  readonly vfs: readonly {
    readonly address: string;
    readonly isHeld: boolean;
    readonly state: string;
    readonly problem: string | undefined;
    readonly tokenId: string | undefined;
  }[];
  readonly connections: number;
}

/** Of the kernel, or of the disk. */
export type Failure =
  | { readonly op: string; readonly errno: number; readonly detail: string | undefined }
  | { readonly code: string; readonly message: string };

/** To the forwarder's process. */
export type Heard =
  | ({ readonly kind: "start" } & StartRequest)
  | { readonly kind: "uevent"; readonly event: Uevent }
  | { readonly kind: "inventory" }
  /** So much time has passed for it. */
  | { readonly kind: "leap"; readonly ms: number }
  | {
      readonly kind: "answer";
      readonly id: number;
      readonly value?: unknown;
      readonly failure?: Failure;
    };

/** From it. */
export type FromForwarder =
  | (NodeRequest & { readonly id: number })
  | { readonly kind: "started" }
  /** It changes something of the node, for a call or by itself. */
  | { readonly kind: "change"; readonly what: string }
  | { readonly kind: "inventory"; readonly inventory: InventoryView };
