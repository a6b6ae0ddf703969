import type { RaisedCondition } from "../telemetry/index.ts";
import { type Html, html } from "./html.ts";
import { legend, pfCard, shortId, vfAnchor } from "./page-picture.ts";
import type { ConnectionView, NodeView, ResourceView, TroubleView } from "./view-form.ts";

/** The whole page. The script at /page.js keeps `main` live; without it the browser reloads. */
export function renderPage(view: NodeView): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${view.isReady ? "●" : "▲"} ${view.name}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/page.css">
<noscript><meta http-equiv="refresh" content="5"></noscript>
<script src="/page.js" type="module"></script>
</head>
<body>
<a class="skip" href="#vfs">To the virtual functions</a>
<header><h1>${view.name}</h1><span class="dim">SR-IOV forwarder ${view.version}</span><span id="link" role="status">as of ${isoTime(view.seenMs)}</span></header>
<main>
${renderMain(view)}
</main>
<footer>Read only. The same for programs: <a href="/status.json">status.json</a>, <a href="/metrics">metrics</a>, <a href="/readyz?verbose">readyz</a></footer>
</body>
</html>
`.text;
}

/** What is inside `main`: readiness, what is wrong, the physical functions as a picture, connections, resources, troubles. */
export function renderMain(view: NodeView): Html {
  const { pfs, seenMs } = view;
  return html`<div id="seen" data-seen="${seenMs}" hidden></div>
${summary(view)}
${view.conditions.length > 0 && conditions(view.conditions, seenMs)}
<section id="vfs" aria-labelledby="vfs-title"><h2 id="vfs-title">Virtual functions</h2>
${legend(pfs)}
${pfs.length === 0 ? html`<p class="empty">No physical function is configured: <code>forwarder discover</code> prints a list for this node.</p>` : pfs.map(pfCard)}
</section>
${connections(view.connections, seenMs)}
${resources(view.resources)}
${troubles(view.troubles, seenMs)}`;
}

function summary({ isReady, conditions: wrong, identity, startedMs, seenMs }: NodeView): Html {
  const blocking = wrong.filter(({ severity }) => severity === "blocking").length;
  const why = blocking === 1 ? "1 condition blocks it" : `${blocking} conditions block it`;
  return html`<div id="summary">
<p id="ready" role="status" class="pill ${isReady ? "good" : "bad"}">${isReady ? "Ready" : `Not ready: ${why}`}</p>
<dl>
<div><dt>up for</dt><dd>${age(startedMs, seenMs)}</dd></div>
<div><dt>identity</dt><dd>${identity ? html`<code>${identity.spiffeId}</code>` : "none yet: waiting for the SPIRE agent"}</dd></div>
${identity && html`<div><dt>certificate ends in</dt><dd>${age(identity.expiresMs, seenMs)}</dd></div>`}
</dl>
</div>`;
}

function conditions(list: readonly RaisedCondition[], nowMs: number): Html {
  return html`<section id="conditions" aria-labelledby="conditions-title"><h2 id="conditions-title">What is wrong</h2>
<ul class="plain">
${list.map((one) => condition(one, nowMs))}
</ul></section>`;
}

function condition({ code, severity, subject, sentence, sinceMs, causedBy }: RaisedCondition, nowMs: number): Html {
  const isBlocking = severity === "blocking";
  return html`<li class="note ${isBlocking ? "bad" : "busy"}"><span class="tag">${isBlocking ? "blocks" : "warning"}</span>
<div><code>${code}</code> ${subject && html`<code>${subject}</code> `}<span class="dim">for ${age(sinceMs, nowMs)}</span>
<p>${sentence}</p>${causedBy.length > 0 && html`<p class="dim">Follows from ${causedBy.join(", ")}: see there first.</p>`}</div></li>`;
}

function connections(list: readonly ConnectionView[], nowMs: number): Html {
  return html`<section id="connections" aria-labelledby="connections-title"><h2 id="connections-title">Connections <span class="count">${list.length}</span></h2>
${
  list.length === 0
    ? html`<p class="empty">No client has a connection.</p>`
    : html`<div class="scroll"><table><thead><tr><th scope="col">Client</th><th scope="col">Pod</th><th scope="col">Network service</th><th scope="col">Endpoint</th><th scope="col">Mechanism</th><th scope="col">VF</th><th scope="col">Phase</th><th scope="col">Ends in, unless refreshed</th><th scope="col">Id</th></tr></thead>
<tbody>
${list.map((one) => connection(one, nowMs))}
</tbody></table></div>`
}</section>`;
}

function connection(one: ConnectionView, nowMs: number): Html {
  const { id, client, pod, networkService, endpoint, mechanism, vf, phase, expiresMs } = one;
  const tone = phase === "established" ? "good" : phase === "reclaiming" ? "bad" : "busy";
  return html`<tr id="c-${id}" class="${tone}"><th scope="row">${client ?? "unknown"}</th><td>${pod ?? "–"}</td><td>${networkService ?? "–"}</td><td>${endpoint ?? "–"}</td><td>${mechanism ?? "–"}</td><td>${vf ? html`<a href="#${vfAnchor(vf)}">${vf}</a>` : "–"}</td><td class="state">${phase}</td><td>${expiresMs === undefined ? "–" : age(expiresMs, nowMs)}</td><td><code title="${id}">${shortId(id)}</code></td></tr>`;
}

function resources(list: readonly ResourceView[]): Html | undefined {
  if (list.length === 0) return undefined;
  return html`<section id="resources" aria-labelledby="resources-title"><h2 id="resources-title">What kubelet is offered</h2>
<div class="scroll"><table><thead><tr><th scope="col">Resource</th><th scope="col" class="num">Devices</th><th scope="col" class="num">With pods</th><th scope="col" class="num">Free</th><th scope="col" class="num">Unavailable</th><th scope="col">In use</th></tr></thead>
<tbody>
${list.map(resource)}
</tbody></table></div></section>`;
}

function resource({ name, total, inUse, free, unavailable }: ResourceView): Html {
  return html`<tr><th scope="row"><code>${name}</code></th><td class="num">${total}</td><td class="num">${inUse}</td><td class="num">${free}</td><td class="num">${unavailable}</td><td><meter min="0" max="${total}" value="${inUse}">${inUse} of ${total}</meter></td></tr>`;
}

function troubles(list: readonly TroubleView[], nowMs: number): Html {
  return html`<section id="troubles" aria-labelledby="troubles-title"><h2 id="troubles-title">Latest warnings and errors</h2>
${
  list.length === 0
    ? html`<p class="empty">None since the start.</p>`
    : html`<ul class="plain">
${list.map(({ atMs, level, event, text }) => html`<li class="note ${level === "error" ? "bad" : "busy"}"><span class="tag">${level}</span><div><code>${event}</code> <span class="dim">${age(atMs, nowMs)} ago</span><p class="fields">${text}</p></div></li>`)}
</ul>`
}</section>`;
}

/** How far a time is from now; the script counts on from there. */
function age(atMs: number, nowMs: number): Html {
  return html`<time datetime="${new Date(atMs).toISOString()}" data-age>${describeAge(Math.abs(nowMs - atMs))}</time>`;
}

/** As the page's own script writes it, which counts on. */
export function describeAge(ms: number): string {
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} days`;
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString().slice(11, 19);
}
