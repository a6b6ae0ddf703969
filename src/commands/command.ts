import type { Clock } from "../async/index.ts";

/** An option or argument of a command, as operators and shells are shown it. */
export interface Option {
  /** Without its dashes. */
  readonly name: string;
  readonly short?: string;
  /** The placeholder of its value in the help, for example "NAME"; a switch has none. */
  readonly value?: string;
  /** The values that there are, where they are few. */
  readonly words?: readonly string[];
  /** May be given several times. */
  readonly isMultiple?: boolean;
  readonly says: string;
}

/** What the command line said of a command. */
export interface Given {
  has(option: string): boolean;
  /** The values of an option, in the order of the command line. */
  values(option: string): readonly string[];
  /** The arguments besides options. */
  readonly words: readonly string[];
}

/** One word after `forwarder`. */
export interface Command {
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** What it does, in lines of at most 100 characters. */
  readonly about: readonly string[];
  /** What follows the name besides options. */
  readonly argument?: { readonly name: string; readonly words: readonly string[] };
  readonly options: readonly Option[];
  readonly examples: readonly { readonly line: string; readonly says: string }[];
  readonly exitCodes: readonly { readonly code: number; readonly says: string }[];
  /** Does it. Answers the exit code. */
  run(given: Given, surroundings: Surroundings): Promise<number>;
}

/** Where text for the operator goes. */
export interface Terminal {
  write(text: string): void;
  /** Characters in a line: those of the terminal, or what reads well in a file. */
  readonly columns: number;
  /** Lines of the terminal. */
  readonly rows: number;
  /** Whether it is a screen, which may be drawn over. */
  readonly isScreen: boolean;
  readonly hasColors: boolean;
}

/** What commands read of the configuration; names as in config.ts. */
export interface CommandSettings {
  readonly connectTo: string;
  readonly managerSpiffeId: readonly { readonly text: string }[] | undefined;
  readonly devicePluginPath: string;
  readonly podResourcesPath: string;
  readonly sriovConfigFile: string;
  readonly pciDevicesPath: string;
  readonly pciDriversPath: string;
  readonly cgroupPath: string;
  readonly vfioPath: string;
  readonly statePath: string;
  readonly spiffeEndpointSocket: string | undefined;
  readonly adminListenOn: { readonly host: string; readonly port: number } | undefined;
}

/** The environment as it was read. */
export interface ReadEnvironment {
  /** With the default where a variable is wrong. */
  readonly settings: CommandSettings;
  /** The wrong ones, and what is wrong. */
  readonly problems: readonly { readonly variable: string; readonly problem: string }[];
  /** Sentences about those that resemble ours and are not. */
  readonly warnings: readonly string[];
  /** Every variable with its default, for the help. */
  readonly variables: readonly { readonly name: string; readonly standard: string }[];
}

/** What the forwarder would let peers have in this process: numbers of the log's `budgets`. */
export interface BudgetFact {
  /** Undefined without a limit. */
  readonly memoryBytes: number | undefined;
  /** Why it is too little, and what to do. */
  readonly shortage: string | undefined;
  readonly says: Readonly<Record<string, string>>;
}

/** What NSM_REGISTRY_CLIENT_POLICIES selects. */
export type PolicyFact =
  | { readonly kind: "selected"; readonly names: readonly string[]; readonly warnings: readonly string[] }
  /** The forwarder does not start with it. */
  | { readonly kind: "unusable"; readonly problem: string };

/** What a command works in. */
export interface Surroundings {
  /** Reads the limits of this process. */
  readonly readBudget: () => Promise<BudgetFact>;
  /** Looks up the policies over the registry's answers. */
  readonly readPolicies: () => Promise<PolicyFact>;
  readonly version: string;
  readonly environment: ReadEnvironment;
  readonly out: Terminal;
  readonly err: Terminal;
  readonly clock: Clock;
  /** Aborted when the command is to end. */
  readonly signal: AbortSignal;
}
