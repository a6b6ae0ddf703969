// NSM's own manifest for the Go original, as facts: what an operator who changes the image alone gives to this forwarder.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { parseConfig } from "../src/config.ts";
import { memoryShortage } from "../src/least-memory.ts";

/** deployments-k8s, apps/forwarder-sriov/forwarder.yaml, at 53739ca (2026). */
const FACTS = {
  env: {
    NSM_NAME: "forwarder-sriov-x7k2p", // metadata.name
    SPIFFE_ENDPOINT_SOCKET: "unix:///run/spire/sockets/agent.sock",
    NSM_CONNECT_TO: "unix:///var/lib/networkservicemesh/nsm.io.sock",
    NSM_LOG_LEVEL: "TRACE",
    NSM_SRIOV_CONFIG_FILE: "/var/lib/networkservicemesh/sriov.config",
  },
  /** Folders of the host; all writable but that of the agent. */
  mounts: [
    "/run/spire/sockets",
    "/var/lib/networkservicemesh",
    "/var/lib/kubelet",
    "/host/sys/fs/cgroup",
    "/host/dev/vfio",
  ],
  memoryBytes: 40 * 1024 * 1024,
};

test("NSM's manifest gives an environment that is taken without a warning", () => {
  const { config, warnings } = parseConfig(FACTS.env);
  assert.deepEqual(warnings, []);
  assert.equal(config.name, "forwarder-sriov-x7k2p");
  assert.ok(config.networkServices.includes("forwarder"), "today's NSMgr looks for that");
});

test("NSM's manifest mounts all that is needed from the host, and the state outlives the pod", () => {
  const { config } = parseConfig(FACTS.env);
  const paths = [
    config.statePath,
    config.devicePluginPath,
    config.podResourcesPath,
    config.cgroupPath,
    config.vfioPath,
    config.sriovConfigFile,
    ...[config.connectTo, config.spiffeEndpointSocket].map((url) => url.replace("unix://", "")),
  ];
  const outside = paths.filter((path) => !FACTS.mounts.some((mount) => `${path}/`.startsWith(`${mount}/`)));
  assert.deepEqual(outside, []);
});

test("NSM's manifest gives too little memory, which is said with what to set, as docs/migrate.md has it", () => {
  assert.match(memoryShortage(FACTS.memoryBytes) ?? "", /has 40 MiB .* needs 96.*limits\.memory should be 256Mi/);
  assert.match(readFileSync("docs/migrate.md", "utf8"), /limits: \{ memory: 256Mi \}/);
});
