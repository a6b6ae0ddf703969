import { type Html, html } from "./html.ts";
import { type PfView, problemCounts, problemsOf, type VfView, vfStates } from "./view-form.ts";

/** How states are shown: a tone for those who see colours, a sign for those who do not. */
const signs = {
  idle: { tone: "idle", sign: "○" },
  reserved: { tone: "kept", sign: "◐" },
  preparing: { tone: "busy", sign: "◔" },
  ready: { tone: "good", sign: "●" },
  reclaiming: { tone: "busy", sign: "↺" },
  quarantined: { tone: "bad", sign: "✕" },
} as const satisfies Record<VfView["state"], unknown>;

const UNWELL = { tone: "bad", sign: "!" } as const;

/** More VFs than this are drawn small. */
const LARGE_TILES = 32;

/** The states that occur, each with its sign and how many VFs are in it. */
export function legend(pfs: readonly PfView[]): Html {
  const vfs = pfs.flatMap((pf) => pf.vfs);
  const counts = vfStates.map((state) => ({ state, count: vfs.filter((vf) => vf.state === state).length }));
  const shown = counts.filter(({ state, count }) => count > 0 || state === "idle" || state === "ready");
  return html`<ul class="legend" aria-label="Virtual functions by state">
${shown.map(({ state, count }) => html`<li class="${signs[state].tone}"><span aria-hidden="true">${signs[state].sign}</span> <b>${count}</b> ${state}</li>`)}
${problemCounts(vfs).map(({ label, count }) => html`<li class="bad"><span aria-hidden="true">${UNWELL.sign}</span> <b>${count}</b> ${label}</li>`)}
</ul>`;
}

/** A physical function with its virtual ones: as tiles, and in words beneath. */
export function pfCard(pf: PfView): Html {
  const { address, ifname, vfs, totalVfs, carrier, problem, hostUse } = pf;
  const id = anchor("pf", address);
  const facts = [
    pf.driver,
    pf.numaNode === undefined ? undefined : `NUMA node ${pf.numaNode}`,
    totalVfs === undefined ? undefined : `${vfs.length} of ${totalVfs} VFs made`,
  ].filter((fact) => fact !== undefined);
  return html`<article class="pf${problem !== undefined && " unwell"}" id="${id}" aria-labelledby="${id}-title">
<div class="head"><svg class="port" viewBox="0 0 32 24" aria-hidden="true"><path d="M3 3h26v18H3z"/><path d="M8 21v-6h3v-3h3V9h4v3h3v3h3v6"/></svg>
<div><h3 id="${id}-title">${ifname ?? address}</h3><p class="dim">${ifname !== undefined && html`<code>${address}</code> · `}${facts.join(" · ")}</p></div>
<p class="carrier ${carrier}">${carrier === "unknown" ? "link unknown" : `link ${carrier}`}</p></div>
${problem !== undefined && html`<p class="problem">${problem}</p>`}
${hostUse !== undefined && html`<p class="dim">The host uses it: ${hostUse}</p>`}
${
  vfs.length > 0 &&
  html`<ul class="tiles${vfs.length > LARGE_TILES && " small"}" aria-label="Virtual functions of ${ifname ?? address}">
${vfs.map(tile)}
</ul>
${inWords(pf)}`
}
</article>`;
}

function textOf(vf: VfView): string {
  return problemsOf(vf)
    .map(({ text }) => text)
    .join("; ");
}

function styleOf(vf: VfView): { readonly tone: string; readonly sign: string } {
  return vf.state !== "quarantined" && problemsOf(vf).length > 0 ? UNWELL : signs[vf.state];
}

function tile(vf: VfView): Html {
  const { tone, sign } = styleOf(vf);
  const label = [`VF ${vf.index}`, vf.state, vf.pod && `pod ${vf.pod}`, textOf(vf)].filter(Boolean).join(", ");
  const holder = vf.pod?.split("/").at(-1) ?? (vf.connection === undefined ? vf.state : "client");
  return html`<li id="t-${vfAnchor(vf.address)}"><a class="${tone}" href="#${vfAnchor(vf.address)}" aria-label="${label}" title="${label}"><span class="index">${vf.index}</span><span class="sign">${sign}</span><span class="holder">${holder}</span></a></li>`;
}

/** A row for each VF; idle ones that nothing is wrong with are folded away. */
function inWords({ address, vfs }: PfView): Html {
  const isQuiet = (vf: VfView) => vf.state === "idle" && problemsOf(vf).length === 0;
  const [quiet, others] = [vfs.filter(isQuiet), vfs.filter((vf) => !isQuiet(vf))];
  return html`${others.length > 0 && table(others)}
${quiet.length > 0 && html`<details id="${anchor("quiet", address)}"><summary>${quiet.length} idle</summary>${table(quiet)}</details>`}`;
}

function table(vfs: readonly VfView[]): Html {
  const hasProblems = vfs.some((vf) => problemsOf(vf).length > 0);
  // What is wrong comes first: on a narrow screen the rest has to be scrolled to.
  const problem = hasProblems ? ["Problem"] : [];
  const headings = ["VF", "Address", "State", ...problem, "Pod", "Connection", "Token", "Driver", "IOMMU group"];
  return html`<div class="scroll"><table><thead><tr>${headings.map((text) => html`<th scope="col">${text}</th>`)}</tr></thead>
<tbody>
${vfs.map((vf) => row(vf, hasProblems))}
</tbody></table></div>`;
}

function row(vf: VfView, hasProblems: boolean): Html {
  const { tone, sign } = styleOf(vf);
  const { connection, token } = vf;
  return html`<tr id="${vfAnchor(vf.address)}" class="${tone}" tabindex="-1"><th scope="row">${vf.index}</th><td><code>${vf.address}</code></td>
<td class="state"><span aria-hidden="true">${sign}</span> ${vf.state}</td>${hasProblems && html`<td class="wrap">${textOf(vf)}</td>`}<td>${vf.pod ?? "–"}</td>
<td>${connection ? html`<a href="#c-${connection}" title="${connection}"><code>${shortId(connection)}</code></a>` : "–"}</td><td>${token ? html`<code>${token}</code>` : "–"}</td>
<td>${vf.driver ?? "none"}</td><td>${vf.iommuGroup ?? "–"}</td></tr>`;
}

/** The first part of a UUID: ids are compared by eye, and the whole one is in the tooltip and in status.json. */
export function shortId(id: string): string {
  return id.length > 13 ? `${id.slice(0, 8)}…` : id;
}

/** Where the page shows a VF in words. */
export function vfAnchor(address: string): string {
  return anchor("vf", address);
}

function anchor(kind: string, address: string): string {
  return `${kind}-${address.replaceAll(/[:.]/g, "-")}`;
}
