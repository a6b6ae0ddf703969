// Who replaces the manager's socket is not the manager, where the operator has said who is.
import assert from "node:assert/strict";
import { renameSync } from "node:fs";
import { SANDBOX_TRUST_DOMAIN } from "../../sandbox/identity/spire.ts";
import { Nsmgr } from "../../sandbox/nsm/nsmgr.ts";
import { SANDBOX_FORWARDER } from "../../sandbox/sandbox.ts";
import { systemClock as clock } from "../../src/async/index.ts";
import { parseSpiffeIdPattern } from "../../src/identity/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { eventually, runStories, type Scene } from "./scenes/story.ts";

const MANAGER = `spiffe://${SANDBOX_TRUST_DOMAIN}/nsmg*`;

runStories(
  "a forwarder whose operator has said who the manager is",
  { settings: { managerSpiffeId: [parseSpiffeIdPattern(MANAGER)] } },
  { "registers with no other peer at the manager's socket, and with the manager again": socketReplaced },
);

async function socketReplaced(scene: Scene): Promise<void> {
  const { nsmgr, folder } = scene.sandbox;
  const pod = await scene.pod();
  await pod.client.request();
  const place = nsmgr.url.slice("unix://".length);
  const actor = scene.sandbox.actor("evil");
  const impostor = new Nsmgr({ name: "nsmgr-1", socketPath: `${folder}/evil.sock`, actor, log: silentLog, clock });
  try {
    await impostor.start();
    await nsmgr.stop({ forget: true });
    renameSync(`${folder}/evil.sock`, place);
    const refused = await eventually(
      () =>
        scene.log.events.find(
          ({ event, fields }) => /registration/.test(event) && /evil/.test(String(fields["error"])),
        ),
      (line) => line !== undefined,
    );
    const said = String(refused?.fields["error"]);
    assert.ok(said.includes(`spiffe://${SANDBOX_TRUST_DOMAIN}/evil answers`), said);
    assert.ok(said.includes(`NSM_MANAGER_SPIFFE_ID wants ${MANAGER}`), said);
    assert.equal(impostor.registry.endpoints.get(SANDBOX_FORWARDER), undefined);
  } finally {
    await impostor.close();
  }
  await nsmgr.start();
  await eventually(
    () => nsmgr.registry.endpoints.get(SANDBOX_FORWARDER),
    (entry) => entry !== undefined,
  );
  await pod.client.request();
  await pod.client.close();
  scene.isMended = true;
}
