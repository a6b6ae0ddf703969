// A policy of the operator's own, compiled, over what the registry answers; and a mask that selects nothing.
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { runStories, type Scene } from "./scenes/story.ts";

const FILE = fileURLToPath(new URL("../../src/opa/testing/compiled.wasm", import.meta.url));
const NOTHING = "etc/nsm/opa/nothing/.*.rego";

runStories(
  "a forwarder with a policy of its operator's own",
  { settings: { registryClientPolicies: [NOTHING, "etc/nsm/opa/client/.*.rego", FILE] } },
  { "registers where the policy says yes, and warns of the mask that selects nothing": registered },
);

async function registered(scene: Scene): Promise<void> {
  const pod = await scene.pod();
  await pod.client.request();
  await pod.client.close();
  const fieldsOf = (name: string) => scene.log.events.filter(({ event }) => event === name).map(({ fields }) => fields);
  assert.deepEqual(fieldsOf("registry-policies"), [{ policies: ["policies/client/next_token_signed.rego", FILE] }]);
  const [{ sentence } = {}, ...more] = fieldsOf("registry-policies-warning");
  assert.deepEqual(more, []);
  assert.ok(String(sentence).includes(`"${NOTHING}" selects nothing`), String(sentence));
}
