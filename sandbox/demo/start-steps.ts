import { Health, HealthCheckResponse_ServingStatus } from "../../src/gen/health_pb.ts";
import { SANDBOX_FORWARDER, SANDBOX_RESOURCE } from "../sandbox.ts";
import { pictureOf } from "./node-picture.ts";
import type { Stage } from "./stage.ts";
import { eventually, expectSame, expectThat, type Step } from "./steps.ts";

/** How long a peer may take to see what it waits for, in ms. */
const PATIENCE_MS = 120_000;
const SERVICE = "networkservice.NetworkService";

/** A node on which nothing serves virtual functions yet. */
export function nodeSteps(stage: Stage): readonly Step[] {
  return [{ title: "node up", run: () => nodeUp(stage) }];
}

/** From there to a forwarder that serves. */
export function startSteps(stage: Stage): readonly Step[] {
  return [
    { title: "SPIRE gives an identity", run: () => identityGiven(stage) },
    { title: "registered with the NSMgr", run: () => registered(stage) },
    { title: "kubelet sees the devices", run: () => kubeletSeesDevices(stage) },
    { title: "forwarder serves", run: () => serves(stage) },
  ];
}

async function nodeUp(stage: Stage): Promise<string> {
  const { machine } = await stage.open();
  stage.before = await pictureOf(machine);
  const vfs = stage.before.flatMap((pf) => pf.vfs);
  expectThat(vfs.length > 0, "physical functions with virtual functions", JSON.stringify(stage.before));
  return `${stage.before.length} physical and ${vfs.length} virtual functions; SPIRE agent, kubelet, NSMgr and endpoint listen`;
}

async function kubeletSeesDevices(stage: Stage): Promise<string> {
  const { sandbox, clock } = stage;
  const desired = stage.before.flatMap((pf) => pf.vfs).length;
  const known = () => sandbox.kubelet.devices.value?.get(SANDBOX_RESOURCE) ?? [];
  const devices = await eventually(clock, {
    expected: `${desired} healthy devices of ${SANDBOX_RESOURCE}`,
    limitMs: PATIENCE_MS,
    observe() {
      stage.throwIfForwarderFailed();
      const healthy = known().filter((device) => device.healthy);
      return healthy.length === desired ? healthy : undefined;
    },
    seen: () => `${known().length} devices, ${known().filter((device) => device.healthy).length} healthy`,
  });
  return `${devices.length} × ${SANDBOX_RESOURCE}, one for each virtual function`;
}

async function identityGiven(stage: Stage): Promise<string> {
  const { sandbox, clock } = stage;
  stage.beginForwarder();
  await eventually(clock, {
    expected: "the forwarder asks the Workload API for its SVID",
    limitMs: PATIENCE_MS,
    observe() {
      stage.throwIfForwarderFailed();
      return sandbox.workload.handedOut > 0 ? true : undefined;
    },
    seen: () => "no Request has come",
  });
  return sandbox.spire.idOf("forwarder");
}

async function registered(stage: Stage): Promise<string> {
  const { sandbox, clock } = stage;
  const { registry } = sandbox.nsmgr;
  const { endpoint } = await eventually(clock, {
    expected: `${SANDBOX_FORWARDER} in the registry`,
    limitMs: PATIENCE_MS,
    observe() {
      stage.throwIfForwarderFailed();
      return registry.endpoints.get(SANDBOX_FORWARDER);
    },
    seen: () =>
      registry.endpoints
        .all()
        .map((entry) => entry.endpoint.name)
        .join(", "),
  });
  expectSame("network services", endpoint.networkServiceNames, ["sriovns", "forwarder"]);
  expectSame("labels", endpoint.networkServiceLabels["forwarder"]?.labels, { p2p: "true" });
  expectSame(
    "path ids",
    endpoint.pathIds,
    ["forwarder", "nsmgr"].map((path) => sandbox.spire.idOf(path)),
  );
  return `${SANDBOX_FORWARDER} as "forwarder", p2p:true; its socket came as a passed descriptor`;
}

async function serves(stage: Stage): Promise<string> {
  await stage.forwarder();
  const { status } = await stage.sandbox.nsmgr.query(SANDBOX_FORWARDER, Health.method.check, { service: SERVICE });
  expectSame(`health of ${SERVICE}`, status, HealthCheckResponse_ServingStatus.SERVING);
  return `${SERVICE} is SERVING, asked over mutual TLS`;
}
