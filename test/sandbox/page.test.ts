// The status page in a real browser, on a node where things happen.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { type Browser, chromium, type Page } from "playwright-core";
import { commonStandIns } from "../../sandbox/nic/sysfs.ts";
import { PodCgroups } from "../../sandbox/pod/pod-cgroups.ts";
import { SANDBOX_RESOURCE, Sandbox, type SandboxOptions } from "../../sandbox/sandbox.ts";
import { systemClock } from "../../src/async/index.ts";
import { silentLog } from "../../src/telemetry/index.ts";
import { needs } from "../needs.ts";
import { VFIO_NEEDS } from "./scenes/vfio-scene.ts";

/** Debian's browser; its own sandbox does not work for root. */
const launch = () => chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });

async function node(t: TestContext, options: Partial<SandboxOptions> = {}) {
  const machine = { realLinks: true, ...options.machine };
  const sandbox = await Sandbox.start({ ...options, machine, log: silentLog, clock: systemClock });
  t.after(() => sandbox.stop());
  const forwarder = await sandbox.startForwarder();
  await sandbox.kubelet.until(SANDBOX_RESOURCE, (devices) => devices.length > 0);
  const browser = await launch();
  t.after(() => browser.close());
  return { sandbox, forwarder, browser, url: forwarder.adminUrl ?? assert.fail("there is no status page") };
}

/** A page that is live; what it asks for elsewhere and what fails in it are kept. */
async function opened(browser: Browser, url: string, colorScheme: "light" | "dark" = "light") {
  const page = await browser.newPage({ colorScheme });
  const faults: string[] = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (said) => said.type() === "error" && faults.push(said.text()));
  page.on("request", (request) => new URL(request.url()).origin === url || faults.push(request.url()));
  await page.goto(url);
  await page.locator("#link.live").waitFor();
  return { page, faults };
}

const tile = (page: Page, name: RegExp) => page.getByRole("link", { name });

test("the page shows a connection as it comes and goes, offline and without secrets", async (t) => {
  if (!needs(t, "netns", "veth", "bridge", "chromium")) return;
  const { sandbox, browser, url } = await node(t);
  const { page, faults } = await opened(browser, url);
  assert.equal(await page.locator("#ready").textContent(), "Ready");
  assert.equal(await page.locator(".tiles a").count(), 16);

  const { client, tokenId } = await sandbox.startPod("client-1");
  const connection = await client.request();
  await tile(page, /^VF \d, ready, pod default\/client-1$/).waitFor();
  const row = page.getByRole("row", { name: /client-1 default\/client-1 sriov-kernel2noop nse-1 KERNEL/ });
  await row.waitFor();
  const text = await page.content();
  assert.ok(text.includes(`${tokenId.slice(0, 10)}…`));
  for (const secret of [tokenId, ...(connection.path?.pathSegments ?? []).map(({ token }) => token)]) {
    assert.ok(secret !== "" && !text.includes(secret));
  }

  await client.close();
  await row.waitFor({ state: "detached" });
  assert.deepEqual(faults, []);
});

test("the page and the metrics show a VFIO connection, with the driver that its VF has for it", async (t) => {
  if (!needs(t, "chromium", ...VFIO_NEEDS)) return;
  const cgroups = PodCgroups.make() ?? assert.fail("no device cgroups");
  const { sandbox, browser, url } = await node(t, { machine: { vfioStandIns: commonStandIns }, cgroups });
  t.after(() => cgroups.close()); // after the sandbox, whose containers are in them
  const { page, faults } = await opened(browser, url);
  const { client } = await sandbox.startVfioPod("vfio-1");
  const connection = await client.request();
  await page.getByRole("row", { name: /vfio-1 default\/vfio-1 sriov-kernel2noop nse-1 VFIO/ }).waitFor();
  const vf = connection.mechanism?.parameters["pciAddress"] ?? "";
  const row = page.getByRole("row", { name: new RegExp(`${vf} ready default/vfio-1 .* vfio-pci \\d+$`) });
  await row.waitFor();
  const metrics = async () => await (await fetch(`${url}/metrics`, { headers: { connection: "close" } })).text();
  const during = await metrics();
  for (const line of [
    /^nsm_sriov_device_grants 1$/m,
    /^nsm_sriov_device_access_seconds_count\{step="grant"\} 1$/m,
    /^nsm_sriov_device_access_repairs_total 0$/m,
    /^nsm_sriov_driver_bind_seconds_count\{use="vfio",outcome="ok"\} 1$/m,
  ]) {
    assert.match(during, line);
  }
  await client.close();
  await row.waitFor({ state: "detached" });
  const afterwards = await metrics();
  assert.match(afterwards, /^nsm_sriov_device_grants 0$/m);
  assert.match(afterwards, /^nsm_sriov_device_access_seconds_count\{step="revoke"\} 1$/m);
  assert.deepEqual(faults, []);
});

test("the page says to a screen reader what each part is, and a quarantined VF with its reason", async (t) => {
  if (!needs(t, "netns", "veth", "bridge", "chromium")) return;
  const { forwarder, browser, url } = await node(t);
  const { page } = await opened(browser, url);
  const [first] = forwarder.node.inventory.snapshot();
  forwarder.node.inventory.raise(first?.address ?? assert.fail("there is no VF"), {
    code: "write-stuck",
    error: "it is stuck",
  });
  await tile(page, /^VF 0, quarantined, it is stuck$/).waitFor();
  const tree = await page.locator("body").ariaSnapshot();
  for (const line of [
    /^- link "To the virtual functions"/m,
    /^- banner:\n {2}- heading "forwarder-1" \[level=1\]/m,
    /^- main:\n {2}- status: ● Ready$/m,
    /^ {2}- region "Virtual functions":\n {4}- heading "Virtual functions" \[level=2\]/m,
    /^ {4}- list "Virtual functions by state":\n(?: {6}- listitem: .*\n)* {6}- listitem: 1 quarantined$/m,
    /^ {4}- article "enp1s0f0":\n {6}- heading "enp1s0f0" \[level=3\]/m,
    /^ {6}- list "Virtual functions of enp1s0f0":\n {8}- listitem:\n {10}- link "VF 0, quarantined, it is stuck"/m,
    /- row "VF Address State Problem Pod Connection Token Driver IOMMU group":/,
    /- row "0 0000:01:10\.0 quarantined it is stuck /,
    /^ {2}- region "Connections \d+":/m,
    /^ {2}- region "What kubelet is offered":/m,
    /^ {2}- region "Latest warnings and errors":/m,
    /^- contentinfo/m,
  ]) {
    assert.match(tree, line);
  }
});

test("the page can be used by keyboard, and what changes beneath leaves focus and folds alone", async (t) => {
  if (!needs(t, "netns", "veth", "bridge", "chromium")) return;
  const { sandbox, forwarder, browser, url } = await node(t);
  const { page } = await opened(browser, url);
  const focused = () => page.evaluate("document.activeElement.getAttribute('aria-label')");

  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate("document.activeElement.textContent"), "To the virtual functions");
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "VF 0, idle");
  for (const key of ["ArrowRight", "ArrowRight", "ArrowLeft"]) await page.keyboard.press(key);
  assert.equal(await focused(), "VF 1, idle");
  await page.evaluate("document.querySelector('details').open = true");

  const [, second] = forwarder.node.inventory.snapshot();
  forwarder.node.inventory.raise(second?.address ?? assert.fail("there is no VF"), {
    code: "write-stuck",
    error: "it is stuck",
  });
  await sandbox.startPod("client-1");
  await tile(page, /^VF 1, quarantined, it is stuck$/).waitFor();
  assert.equal(await focused(), "VF 1, quarantined, it is stuck");
  assert.equal(await page.locator("details").first().getAttribute("open"), "");
  await page.keyboard.press("Enter");
  assert.match((await page.locator("tr:target").textContent()) ?? "", /quarantined.*it is stuck/s);
});

test("the page reports a node that cannot serve, and when the forwarder has gone", async (t) => {
  if (!needs(t, "netns", "veth", "bridge", "chromium")) return;
  const { sandbox, forwarder, browser, url } = await node(t);
  const { page } = await opened(browser, url);
  const broken = forwarder.health.condition("journal-not-written");
  broken.raise("Cannot write the journal: no space left; free some");
  await page.getByRole("status").filter({ hasText: "Not ready: 1 condition blocks it" }).waitFor();
  await page.getByText("Cannot write the journal: no space left; free some").waitFor();
  assert.match(await page.title(), /^▲/);
  await sandbox.stopForwarder();
  await page.getByRole("status").filter({ hasText: "no answer: this view is old" }).waitFor();
});

test("the page can be read in light and dark, and without a script", async (t) => {
  if (!needs(t, "netns", "veth", "bridge", "chromium")) return;
  const { sandbox, forwarder, browser, url } = await node(t);
  const { client } = await sandbox.startPod("client-1");
  await client.request();
  forwarder.node.inventory.raise(forwarder.node.inventory.snapshot()[9]?.address ?? assert.fail(), {
    code: "write-stuck",
    error: "it is stuck",
  });
  for (const scheme of ["light", "dark"] as const) {
    const { page } = await opened(browser, url, scheme);
    for (const { text, ratio } of await contrasts(page)) assert.ok(ratio >= 4.5, `${scheme}: ${text} has ${ratio}`);
  }
  const plain = await browser.newPage({ javaScriptEnabled: false });
  await plain.goto(url);
  await tile(plain, /^VF \d, ready, pod default\/client-1$/).waitFor();
});

/** How well each text stands out from what is behind it (WCAG 2.2, 1.4.3: at least 4.5). */
function contrasts(page: Page): Promise<{ text: string; ratio: number }[]> {
  return page.evaluate(`(() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data]; };
    const light = (colour) => { const [r, g, b] = rgba(colour).slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const behind = (element) => { for (let at = element; at; at = at.parentElement) {
      const { backgroundColor } = getComputedStyle(at); if (rgba(backgroundColor)[3] > 0) return backgroundColor; } return "white"; };
    const own = (element) => [...element.childNodes].some((child) => child.nodeType === 3 && child.data.trim() !== "");
    return [...document.querySelectorAll("body *")].filter((element) => own(element) && element.checkVisibility()).map((element) => {
      const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
      return { text: element.textContent.trim().slice(0, 40), ratio: Math.round((a + 0.05) / (b + 0.05) * 100) / 100 };
    });
  })()`);
}
