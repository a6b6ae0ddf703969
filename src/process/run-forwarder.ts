// The forwarder as a process: from a configuration that was read to an exit code.
import { AdminError, type AdminServer, serveProfiles } from "../admin/index.ts";
import { systemClock, UndoStack } from "../async/index.ts";
import type { Config, ParsedConfig } from "../config.ts";
import { type ForwarderOptions, startForwarder } from "../forwarder.ts";
import { exitNow, readSmallFile, selfTest } from "../kernel/index.ts";
import { openLinuxHost, openPfConfigFile } from "../node/index.ts";
import type { OtlpExporter } from "../otlp/index.ts";
import { PF_CONFIG_MEBIBYTES, parsePfConfig } from "../pci/index.ts";
import { checkTls } from "../rpc/index.ts";
import { createLog, createMetrics, type Log, type Metrics } from "../telemetry/index.ts";
import { version } from "../version.ts";
import { waitForDebugger } from "./inspector.ts";
import { ownBudgets } from "./own-budgets.ts";
import { live, type Running } from "./process-life.ts";

/** Half of the time that Kubernetes gives a pod to end by default. */
const STOP_LIMIT_MS = 15_000;

/** Runs it until a stop signal; ends the process. */
export async function runForwarder({ config, effective, otel, warnings }: ParsedConfig): Promise<void> {
  const log = createLog({ level: config.logLevel });
  try {
    await waitForDebugger(config.debugListenOn, log);
  } catch (err) {
    log.error("start-failed", { err });
    return exitNow(1);
  }
  log.info("starting", { version, node: process.version, pid: process.pid });
  log.info("configuration", effective);
  for (const sentence of warnings) log.warn("configuration-warning", { sentence });
  await live({
    start: (signal, started) => start(config, log, { signal, started, otel }),
    log,
    configuredLevel: config.logLevel,
    clock: systemClock,
    process: { on: process.on.bind(process), exit: exitNow },
    stopLimitMs: STOP_LIMIT_MS,
  });
}

type LifeParts = Pick<ForwarderOptions, "signal" | "started"> & Pick<ParsedConfig, "otel">;

async function start(config: Config, log: Log, { otel, ...life }: LifeParts): Promise<Running> {
  const pfConfig = parsePfConfig(await readPfConfig(config.sriovConfigFile), config.sriovConfigFile);
  await selfTest();
  checkTls();
  const opened = openLinuxHost(config, log);
  const metrics = createMetrics();
  metrics.addProcessMetrics();
  const pfConfigFile = openPfConfigFile(config.sriovConfigFile, systemClock);
  const budgets = await ownBudgets(systemClock);
  const facts = { settings: config, pfConfig, pfConfigFile, host: opened, budgets };
  const options = { ...facts, metrics, clock: systemClock, log, ...life };
  const profiles = config.isPprofEnabled ? await startProfiles(config.pprofListenOn, log) : undefined;
  const otlp = config.isTelemetryEnabled ? await startOtlp({ config, otel }, metrics, log) : undefined;
  const forwarder = await startForwarder({ ...options, ...(otlp ? { tracer: otlp.tracer } : {}) });
  const undo = new UndoStack();
  undo.push("the node", () => opened.close());
  undo.push("the watch of the list of physical functions", () => pfConfigFile.close());
  if (otlp) undo.push("telemetry", () => otlp.stop());
  if (profiles) undo.push("profiles", () => profiles.close());
  return {
    get stopping() {
      return forwarder.stopping ?? undo.current;
    },
    async stop() {
      await forwarder.stop();
      await undo.unwind((part, error) => log.error("part-not-stopped", { part, error: String(error) }));
    },
  };
}

type OtlpVariables = Pick<ParsedConfig, "config" | "otel">;

/** Its code is loaded where it is needed only. What is wrong with where it goes is said, and clients are served all the same. */
async function startOtlp({ config, otel }: OtlpVariables, metrics: Metrics, log: Log): Promise<OtlpExporter> {
  const { OtlpExporter, otlpSettings } = await import("../otlp/index.ts");
  const { openTelemetryEndpoint: endpoint, metricsExportIntervalMs: metricsIntervalMs, name } = config;
  const settings = otlpSettings(otel, { endpoint, metricsIntervalMs, name, version });
  for (const problem of settings.problems) log.error("telemetry-off", { problem });
  for (const sentence of settings.warnings) log.warn("configuration-warning", { sentence });
  const [traces, sent] = [settings.traces, settings.metrics].map(
    (to) => to && { to: to.target, tls: to.tls !== undefined },
  );
  log.info("telemetry", { traces: traces ?? "off", metrics: sent ?? "off" });
  return new OtlpExporter({ settings, scope: { name, version }, metrics, clock: systemClock, log });
}

/** Clients are served without them too. */
async function startProfiles(listenOn: Config["pprofListenOn"], log: Log): Promise<AdminServer | undefined> {
  if (!listenOn) return undefined;
  try {
    const profiles = await serveProfiles({ listenOn, clock: systemClock, log });
    log.info("profiles", { url: `${profiles.url}/debug/pprof/` });
    return profiles;
  } catch (error) {
    if (!(error instanceof AdminError)) throw error;
    log.error("profiles-off", { error: error.message });
    return undefined;
  }
}

async function readPfConfig(path: string): Promise<string> {
  try {
    return await readSmallFile(path, PF_CONFIG_MEBIBYTES);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`Cannot start without the list of physical functions, NSM_SRIOV_CONFIG_FILE=${path}: ${why}`);
  }
}
