// What the outside may see of the process: logs, metrics, health, the status page.
// It knows no subject of the forwarder: each room declares its own metrics and health conditions beside its code.
export type { Log, LogFields, LogLevel, RootLog } from "./log.ts";
