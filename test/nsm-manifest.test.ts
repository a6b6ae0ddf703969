// NSM's own manifest for the Go original, as facts: what an operator who changes the image alone gives to this forwarder.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { parseConfig } from "../src/config.ts";
import { memoryShortage } from "../src/least-memory.ts";
import { NSM_MANIFEST } from "./fixtures/nsm-manifest.ts";

test("NSM's manifest gives an environment that is taken without a warning", () => {
  const { config, warnings } = parseConfig(NSM_MANIFEST.env);
  assert.deepEqual(warnings, []);
  assert.equal(config.name, "forwarder-sriov-x7k2p");
  assert.ok(config.networkServices.includes("forwarder"), "today's NSMgr looks for that");
});

test("NSM's manifest mounts all that is needed from the host, and the state outlives the pod", () => {
  const { config } = parseConfig(NSM_MANIFEST.env);
  const paths = [
    config.statePath,
    config.devicePluginPath,
    config.podResourcesPath,
    config.cgroupPath,
    config.vfioPath,
    config.sriovConfigFile,
    ...[config.connectTo, config.spiffeEndpointSocket].map((url) => url.replace("unix://", "")),
  ];
  const outside = paths.filter((path) => !NSM_MANIFEST.mounts.some((mount) => `${path}/`.startsWith(`${mount}/`)));
  assert.deepEqual(outside, []);
});

test("NSM's manifest gives too little memory, which is said with what to set, as docs/migrate.md has it", () => {
  assert.match(
    memoryShortage(NSM_MANIFEST.memoryBytes) ?? "",
    /has 40 MiB .* needs 96.*limits\.memory should be 256Mi/,
  );
  assert.match(readFileSync("docs/migrate.md", "utf8"), /limits: \{ memory: 256Mi \}/);
});
