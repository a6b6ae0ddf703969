// The node's VFs as metrics: views of what the modules know, made at each scrape.
import type { Identity } from "../identity/index.ts";
import { vfConditionCodes, vfStates } from "../inventory/index.ts";
import type { KernelParts } from "../mechanisms/index.ts";
import type { Node } from "../node/index.ts";
import type { DriverBinderOptions } from "../pci/index.ts";
import { type Health, type Metrics, ofNode, outcomes } from "../telemetry/index.ts";
import { version } from "../version.ts";

type ShownParts = Pick<Node, "inventory" | "survey" | "binder">;

/** Declares the VFs by state and condition, the PFs, the tokens of each resource, and the drivers' queue. */
export function declareNodeMetrics(metrics: Metrics, parts: ShownParts): void {
  declareVfMetrics(metrics, parts);
  declarePfMetrics(metrics, parts);
  declareTokenMetrics(metrics, parts);
  metrics.gauge({
    name: "nsm_sriov_driver_queue_length",
    help: "Driver changes that wait for another one of their IOMMU group",
    collect: (gauge) => gauge.set({}, parts.binder.waiting),
  });
}

function declareVfMetrics(metrics: Metrics, { inventory }: ShownParts): void {
  metrics.gauge({
    name: "nsm_sriov_virtual_functions",
    help: "Virtual functions by their physical one and their state",
    labels: { pf: ofNode, state: vfStates },
    collect(gauge) {
      for (const [pf, vfs] of Map.groupBy(inventory.snapshot(), (vf) => vf.pf)) {
        for (const state of vfStates) gauge.set({ pf, state }, vfs.filter((vf) => vf.state === state).length);
      }
    },
  });
  metrics.gauge({
    name: "nsm_sriov_virtual_functions_unhealthy",
    help: "Virtual functions with a problem, quarantined ones included; the status page says which and why",
    labels: { pf: ofNode },
    collect(gauge) {
      for (const [pf, vfs] of Map.groupBy(inventory.snapshot(), (vf) => vf.pf)) {
        gauge.set({ pf }, vfs.filter(({ problem }) => problem !== undefined).length);
      }
    },
  });
  metrics.gauge({
    name: "nsm_sriov_virtual_function_conditions",
    help: "Virtual functions by their physical one and the condition that they are in; one may be in several",
    labels: { pf: ofNode, code: vfConditionCodes },
    collect(gauge) {
      for (const [pf, vfs] of Map.groupBy(inventory.snapshot(), (vf) => vf.pf)) {
        const codes = vfs.flatMap(({ conditions }) => conditions.map(({ code }) => code));
        for (const code of vfConditionCodes) gauge.set({ pf, code }, codes.filter((one) => one === code).length);
      }
    },
  });
}

function declarePfMetrics(metrics: Metrics, { survey }: ShownParts): void {
  metrics.gauge({
    name: "nsm_sriov_physical_function_up",
    help: "1 for a configured physical function that can be used and about which nothing is wrong, 0 otherwise",
    labels: { pf: ofNode },
    collect(gauge) {
      for (const { address: pf } of survey.config.physicalFunctions) {
        gauge.set({ pf }, survey.problemOf(pf) === undefined ? 1 : 0);
      }
    },
  });
}

function declareTokenMetrics(metrics: Metrics, { inventory }: ShownParts): void {
  metrics.gauge({
    name: "nsm_sriov_tokens",
    help: "Device ids that kubelet is offered: with a pod, free, or unavailable because their VF is taken or not well",
    labels: { resource: ofNode, state: ["allocated", "free", "unavailable"] },
    collect(gauge) {
      for (const resource of inventory.resources) {
        const devices = inventory.devicesOf(resource);
        const allocated = devices.filter((device) => device.allocated).length;
        const free = devices.filter((device) => !device.allocated && device.healthy).length;
        gauge.set({ resource, state: "allocated" }, allocated);
        gauge.set({ resource, state: "free" }, free);
        gauge.set({ resource, state: "unavailable" }, devices.length - allocated - free);
      }
    },
  });
}

/** Declares the drivers' changes; gives what the binder calls. */
export function declareBinds(metrics: Metrics): Pick<DriverBinderOptions, "onTried"> {
  const seconds = metrics.histogram({
    name: "nsm_sriov_driver_bind_seconds",
    help: "How long it took to give a virtual function another driver, by what it was to be used as",
    labels: { use: ["kernel", "vfio"], outcome: outcomes },
  });
  return { onTried: (use, outcome, took) => seconds.observe({ use, outcome }, took) };
}

/** Declares the moves of network devices; gives what the KERNEL mechanism calls. */
export function declareMoves(metrics: Metrics): Pick<KernelParts, "onMoved"> {
  const seconds = metrics.histogram({
    name: "nsm_sriov_move_seconds",
    help: "How long it took to take a network device to its client with its settings, or back to the host",
    labels: { to: ["client", "host"], outcome: outcomes },
  });
  return { onMoved: (to, outcome, took) => seconds.observe({ to, outcome }, took) };
}

/** Declares what is wrong by its code, whether that blocks, and which program this is. */
export function declareHealthMetrics(metrics: Metrics, health: Health): void {
  metrics.gauge({
    name: "nsm_sriov_conditions",
    help: "Conditions that hold now, by code: how many subjects each has",
    labels: { code: ofNode, severity: ["blocking", "warning"] },
    collect(gauge) {
      for (const [code, same] of Map.groupBy(health.conditions(), (condition) => condition.code)) {
        const severity = same[0]?.severity;
        if (severity) gauge.set({ code, severity }, same.length);
      }
    },
  });
  metrics.gauge({
    name: "nsm_sriov_ready",
    help: "1 while the forwarder can serve, 0 while a condition blocks it",
    collect: (gauge) => gauge.set({}, health.ready.value === true ? 1 : 0),
  });
  metrics
    .gauge({ name: "nsm_sriov_info", help: "Always 1; its label is the version", labels: { version: ofNode } })
    .set({ version }, 1);
}

/** Declares how long our certificate is valid. */
export function declareIdentityMetrics(metrics: Metrics, { current }: Pick<Identity, "current">): void {
  metrics.gauge({
    name: "nsm_sriov_svid_expiry_timestamp_seconds",
    help: "When our X.509 SVID ends, in Unix time; absent until there is one",
    collect(gauge) {
      const svid = current.value;
      if (svid) gauge.set({}, svid.notAfterMs / 1000);
    },
  });
}
