// Every variable of the environment that we read, in one table. Only the program's edge reads it; the README's table is printed from it.
import {
  collector,
  durationFrom,
  flag,
  labels,
  list,
  listenAnywhereOrOff,
  listenOrOff,
  listOrNone,
  logLevel,
  path,
  socketUrl,
  spiffeIds,
  text,
  type ValueKind,
} from "./config-values.ts";
// Not by the door: a word on the command line would load the whole module, its YAML reader and the log.
import { nearestWord } from "./pci/nearest.ts";

interface Variable<T> {
  readonly names: readonly [name: string, ...aliases: string[]];
  readonly kind: ValueKind<T>;
  /** In the variable's own spelling. None: not set by default. */
  readonly standard: string | undefined;
  readonly isRequired?: boolean;
  readonly meaning: string;
}

type Names = string | readonly [string, ...string[]];

function variable<T>(names: Names, kind: ValueKind<T>, standard: string, meaning: string): Variable<T> {
  return { names: typeof names === "string" ? [names] : names, kind, standard, meaning };
}

function optional<T>(names: Names, kind: ValueKind<T>, meaning: string): Variable<T | undefined> {
  return { names: typeof names === "string" ? [names] : names, kind, standard: undefined, meaning };
}

function required<T>(name: string, kind: ValueKind<T>, meaning: string): Variable<T> {
  return { names: [name], kind, standard: undefined, isRequired: true, meaning };
}

const policyMasks = "etc/nsm/opa/common/.*.rego,etc/nsm/opa/registry/.*.rego,etc/nsm/opa/client/.*.rego";

const variables = {
  name: variable("NSM_NAME", text, "sriov-forwarder", "Name of the network service endpoint that we register"),
  networkServices: variable(
    ["NSM_NS_NAME", "NSM_NSNAME"],
    list,
    "sriovns,forwarder",
    "Names of the network services that we register for; today's NSMgr looks for `forwarder`",
  ),
  labels: variable("NSM_LABELS", labels, "p2p:true", "Labels registered with each network service"),
  connectTo: variable("NSM_CONNECT_TO", socketUrl, "unix:///var/lib/networkservicemesh/nsm.io.sock", "The NSMgr"),
  managerSpiffeId: optional(
    "NSM_MANAGER_SPIFFE_ID",
    spiffeIds,
    "Whom we take for the NSMgr, for example `spiffe://k8s.nsm/ns/nsm-system/pod/nsmgr-*`: `*` is a part of a segment, `**` any segments, " +
      "commas separate several; not set: any peer that answers at `NSM_CONNECT_TO`",
  ),
  spiffeIds: optional(
    "NSM_SPIFFE_ID",
    spiffeIds,
    "Which of the SVIDs is ours where the SPIRE agent issues several, spelled like the one before; not set: the one that we have while it " +
      "is issued, also after a restart, else the first",
  ),
  dialTimeoutMs: variable(
    "NSM_DIAL_TIMEOUT",
    durationFrom("10ms", "20s"),
    "1s",
    "Limit for dialling an endpoint; 0 means 20s, gRPC's own",
  ),
  maxTokenLifetimeMs: variable(
    "NSM_MAX_TOKEN_LIFETIME",
    durationFrom("1s"),
    "24h",
    "Lifetime of the tokens that we issue",
  ),
  registryClientPolicies: variable(
    "NSM_REGISTRY_CLIENT_POLICIES",
    listOrNone,
    policyMasks,
    "Masks of the policies that answers of the registry must pass, built-in ones and " +
      "[compiled ones](docs/operate.md#policies-of-ones-own) of files; one that matches none is a warning. " +
      "Set to nothing, every answer is allowed",
  ),
  resourcePollTimeoutMs: variable(
    "NSM_RESOURCE_POLL_TIMEOUT",
    durationFrom("1s", "1s"),
    "30s",
    "How often kubelet is asked which pod holds which device; 0 means 1s",
  ),
  reconcileIntervalMs: variable(
    "NSM_RECONCILE_INTERVAL",
    durationFrom("100ms"),
    "5s",
    "How often the node is compared with what is known of it, besides the kernel's events",
  ),
  devicePluginPath: variable(
    "NSM_DEVICE_PLUGIN_PATH",
    path,
    "/var/lib/kubelet/device-plugins/",
    "Folder of kubelet's device plugin sockets",
  ),
  podResourcesPath: variable(
    "NSM_POD_RESOURCES_PATH",
    path,
    "/var/lib/kubelet/pod-resources/",
    "Folder of kubelet's pod resources socket",
  ),
  sriovConfigFile: variable(
    "NSM_SRIOV_CONFIG_FILE",
    path,
    "./pci.config",
    "The file that lists the physical functions",
  ),
  pciDevicesPath: variable("NSM_PCI_DEVICES_PATH", path, "/sys/bus/pci/devices", "PCI devices in sysfs"),
  pciDriversPath: variable("NSM_PCI_DRIVERS_PATH", path, "/sys/bus/pci/drivers", "PCI drivers in sysfs"),
  cgroupPath: variable(
    "NSM_CGROUP_PATH",
    path,
    "/host/sys/fs/cgroup/devices",
    "Device cgroups of the host (version 1); on a unified host the mount that holds this path is used",
  ),
  vfioPath: variable("NSM_VFIO_PATH", path, "/host/dev/vfio", "VFIO device nodes of the host"),
  logLevel: variable("NSM_LOG_LEVEL", logLevel, "INFO", "SIGUSR1 switches to TRACE, SIGUSR2 back to this level"),
  isTelemetryEnabled: variable("TELEMETRY", flag, "false", "Whether traces and metrics are sent by OTLP"),
  openTelemetryEndpoint: variable(
    "NSM_OPEN_TELEMETRY_ENDPOINT",
    collector,
    "otel-collector.observability.svc.cluster.local:4317",
    "Where they are sent; a collector that cannot be reached delays nothing. `OTEL_*` go before it: " +
      "[operate.md](docs/operate.md#a-collector)",
  ),
  metricsExportIntervalMs: variable(
    "NSM_METRICS_EXPORT_INTERVAL",
    durationFrom("100ms"),
    "10s",
    "How often metrics are sent",
  ),
  isPprofEnabled: variable("NSM_PPROF_ENABLED", flag, "false", "Whether CPU and heap profiles are served over HTTP"),
  pprofListenOn: variable(
    "NSM_PPROF_LISTEN_ON",
    listenOrOff,
    "localhost:6060",
    "Where profiles are served; loopback addresses only",
  ),
  spiffeEndpointSocket: required(
    "SPIFFE_ENDPOINT_SOCKET",
    socketUrl,
    "Workload API of the SPIRE agent, for example `unix:///run/spire/sockets/agent.sock`; must be set",
  ),
  debugListenOn: optional(
    "DLV_LISTEN_FORWARDER",
    listenAnywhereOrOff,
    "Opens the Node inspector there and waits for a debugger before anything else runs; without a host on every address",
  ),
  adminListenOn: variable(
    "NSM_ADMIN_LISTEN_ON",
    listenOrOff,
    "localhost:9871",
    "Status page, metrics and health over HTTP; off loopback only by mutual TLS, to SVIDs of our trust domain",
  ),
  statePath: variable(
    "NSM_STATE_PATH",
    path,
    "/var/lib/networkservicemesh/sriov-forwarder",
    "Folder of our journal and of the node's secret; must outlive the pod",
  ),
} as const satisfies Readonly<Record<string, Variable<unknown>>>;

type Parsed<V> = V extends Variable<infer T> ? T : never;

/** The effective configuration. Durations are milliseconds. */
export type Config = { readonly [K in keyof typeof variables]: Parsed<(typeof variables)[K]> };

/** One variable that cannot be taken. */
interface ConfigProblem {
  readonly variable: string;
  /** What is so and what was expected. */
  readonly problem: string;
}

/** The environment does not give a configuration; holds all problems, not the first one. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly fault: { readonly kind: "wrong-variables"; readonly problems: readonly ConfigProblem[] };

  constructor(problems: readonly ConfigProblem[]) {
    const lines = problems.map(({ variable, problem }) => `  ${variable} ${problem}`);
    super(`Cannot take the configuration from the environment:\n${lines.join("\n")}`);
    this.fault = { kind: "wrong-variables", problems };
  }
}

/** What the environment gives. */
export interface ParsedConfig {
  readonly config: Config;
  /** Each variable with the text that holds, for the log. */
  readonly effective: Readonly<Record<string, string>>;
  /** Those of OpenTelemetry that are set to something, as they are: read where telemetry is on, and never logged. */
  readonly otel: Readonly<Record<string, string>>;
  /** One sentence for each variable that resembles ours and is not. */
  readonly warnings: readonly string[];
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads the whole environment. A variable set to nothing counts as not set, but for one that can be none.
 * @throws {ConfigError} with every variable that is wrong.
 */
export function parseConfig(environment: Environment): ParsedConfig {
  const { config, effective, warnings, problems } = inspectConfig(environment);
  if (problems.length > 0) throw new ConfigError(problems);
  return { config: Object.freeze(config) as Config, effective, otel: otelOf(environment), warnings };
}

function otelOf(environment: Environment): Readonly<Record<string, string>> {
  const given = Object.entries(environment).map(([name, text = ""]) => [name, text.trim()] as const);
  return Object.fromEntries(given.filter(([name, text]) => name.startsWith("OTEL_") && text !== ""));
}

/** What the environment gives, as far as it does. */
interface InspectedConfig {
  /** A wrong variable has its default here; one that must be set and is not is undefined. */
  readonly config: Omit<Config, "spiffeEndpointSocket"> & { readonly spiffeEndpointSocket: string | undefined };
  readonly effective: ParsedConfig["effective"];
  readonly warnings: ParsedConfig["warnings"];
  readonly problems: readonly ConfigProblem[];
}

/** Reads the whole environment for `forwarder check`, which shows what is wrong with it. */
export function inspectConfig(environment: Environment): InspectedConfig {
  const problems: ConfigProblem[] = [];
  const config: Record<string, unknown> = {};
  const effective: Record<string, string> = {};
  for (const [key, row] of Object.entries<Variable<unknown>>(variables)) {
    const least = row.kind.none === undefined ? 1 : 0;
    const set = row.names.filter((name) => (environment[name]?.trim().length ?? -1) >= least);
    const given = new Set(set.map((name) => environment[name]));
    if (given.size > 1) problems.push({ variable: set.join(" and "), problem: "differ and mean the same: set one" });
    const used = environment[set[0] ?? ""] ?? row.standard;
    if (used === undefined && row.isRequired) {
      problems.push({ variable: row.names[0], problem: "is not set and has no default" });
    }
    config[key] = used === undefined ? undefined : parseOne(set[0] ?? row.names[0], used, row, problems);
    effective[row.names[0]] = used ?? "";
  }
  const read = config as InspectedConfig["config"];
  return { config: read, effective, warnings: unknownVariables(environment), problems };
}

function parseOne(
  variable: string,
  given: string,
  { kind, standard }: Variable<unknown>,
  problems: ConfigProblem[],
): unknown {
  try {
    return given.trim() === "" && kind.none !== undefined ? kind.none : kind.parse(given.trim());
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    problems.push({ variable, problem: `is ${JSON.stringify(given)}: want ${error.message}` });
    return standard === undefined ? undefined : kind.parse(standard);
  }
}

/** Variables that Kubernetes sets for each service of the namespace (`NSM_REGISTRY_PORT_5002_TCP_ADDR`): not meant for us. */
const SERVICE_LINK = /_(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_\d+_(TCP|UDP|SCTP)(_.*)?)?)$/;

function unknownVariables(environment: Environment): readonly string[] {
  const known = Object.values<Variable<unknown>>(variables).flatMap((row) => row.names);
  const foreign = Object.keys(environment).filter(
    (name) => name.startsWith("NSM_") && !known.includes(name) && !SERVICE_LINK.test(name),
  );
  const bare = (name: string) => name.replace(/^NSM_/, ""); // all have it in common: it must not make words near
  return foreign.sort().map((name) => {
    const near = nearestWord(bare(name), known.map(bare));
    const meant = known.find((other) => bare(other) === near);
    return `${name} is set and nothing reads it${meant === undefined ? "" : `; did you mean ${meant}?`}`;
  });
}

/** One row for each variable: name with aliases, kind, default, meaning. */
export function configRows(): readonly { names: readonly string[]; kind: string; standard: string; meaning: string }[] {
  return Object.values<Variable<unknown>>(variables).map((row) => ({
    names: row.names,
    kind: row.kind.title,
    standard: row.standard ?? "",
    meaning: row.meaning,
  }));
}

/** The table of variables as Markdown, as the README has it. */
export function configMarkdown(): string {
  const rows = configRows().map(({ names: [name, ...aliases], kind, standard, meaning }) => {
    const shown =
      aliases.length > 0 ? `\`${name}\` (or ${aliases.map((other) => `\`${other}\``).join(", ")})` : `\`${name}\``;
    return `| ${shown} | ${kind} | ${standard === "" ? "" : `\`${standard}\``} | ${meaning} |`;
  });
  return ["| variable | kind | default | meaning |", "|---|---|---|---|", ...rows, ""].join("\n");
}
