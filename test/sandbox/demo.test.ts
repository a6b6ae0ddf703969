import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Screen } from "../../sandbox/demo/screen.ts";
import { runDemo } from "../../sandbox/demo/story.ts";
import { systemClock } from "../../src/async/index.ts";
import { has, needs } from "../needs.ts";

test("the demo holds from its first step to its last", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  let text = "";
  const terminal = {
    columns: 120,
    write(more: string) {
      text += more;
    },
  };
  const screen = new Screen(terminal, { noColour: true });
  const stop = new AbortController().signal;
  const held = await runDemo({
    isOnce: true,
    isLogShown: false,
    whyNoLinks: undefined,
    pageDoor: undefined,
    screen,
    clock: systemClock,
    stop,
  });
  assert.ok(held, text);
  // The last six are those of VFIO.
  assert.equal(text.match(/ ✓ /g)?.length, has("root") && has("cgroup1-devices") && has("mknod") ? 27 : 21);
});

test("the demo holds for a user that is not root, in a user namespace of its own", (t) => {
  if (!needs(t, "root", "userns", "veth", "bridge")) return; // root, to become another user
  const done = spawnAsNobody(t, ["sandbox/demo/main.ts", "--once"]);
  assert.equal(done.status, 0, done.stdout + done.stderr);
  assert.match(done.stdout, /Every step that this machine can run held; 6 were left out/);
});

test("the demo's page answers where the demo was started, outside the namespace that it runs in", async (t) => {
  if (!needs(t, "netns", "veth", "bridge")) return;
  const demo = spawn(process.execPath, ["sandbox/demo/main.ts"], { stdio: ["ignore", "pipe", "pipe"] });
  const ended = once(demo, "exit");
  t.after(async () => {
    demo.kill("SIGTERM");
    await ended;
  });
  let text = "";
  let url: string | undefined;
  demo.stderr.on("data", (data: Buffer) => {
    text += data;
  });
  for await (const data of demo.stdout.iterator({ destroyOnReturn: false })) {
    text += data;
    url = /Open in a browser: (http:\S+)\n/.exec(text)?.[1];
    if (url !== undefined) break;
  }
  demo.stdout.resume();
  assert.ok(url !== undefined, text);
  const node = await fetch(`${url}/status.json`, { headers: { connection: "close" } });
  const { pfs } = (await node.json()) as { readonly pfs: readonly unknown[] };
  assert.deepEqual([node.status, pfs.length], [200, 2]);
  const page = await fetch(url, { headers: { connection: "close" } });
  assert.match(await page.text(), /^<!doctype html>/i);
  demo.kill("SIGTERM");
  assert.deepEqual(await ended, [0, null]);
});

/** Runs a program of the checkout as user 65534, who may read the checkout and this Node where they are mounted for it. */
function spawnAsNobody(t: TestContext, program: readonly string[]) {
  const folder = mkdtempSync(join(tmpdir(), "as-user-"));
  t.after(() => rmSync(folder, { recursive: true }));
  chmodSync(folder, 0o755);
  const places = { checkout: join(folder, "checkout"), node: join(folder, "node") };
  for (const place of Object.values(places)) mkdirSync(place);
  const mounts = `mount --bind "$1" "${places.checkout}" && mount --bind "$2" "${places.node}"`;
  const become = "setpriv --reuid=65534 --regid=65534 --clear-groups";
  const run = `${mounts} && cd "${places.checkout}" && shift 2 && exec ${become} "${places.node}/node" "$@"`;
  const checkout = fileURLToPath(new URL("../..", import.meta.url));
  const args = ["--mount", "sh", "-c", run, "sh", checkout, dirname(process.execPath), ...program];
  return spawnSync("unshare", args, { encoding: "utf8" });
}
