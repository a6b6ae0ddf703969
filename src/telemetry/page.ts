import type { Ailment } from "./health.ts";
import type { StatusFact, StatusRow, StatusTable } from "./status.ts";

/** All that one view of the page shows. */
export interface PageContent {
  readonly title: string;
  readonly isReady: boolean;
  readonly ailments: readonly Ailment[];
  readonly facts: readonly StatusFact[];
  readonly tables: readonly StatusTable[];
  /** Time of the view, ms since 1970. */
  readonly nowMs: number;
}

/** The whole page; the script at /page.js renews what is inside `main` every two seconds, without it the browser reloads. */
export function renderPage(content: PageContent): string {
  const title = escapeHtml(content.title);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title}: ${content.isReady ? "ready" : "not ready"}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/page.css">
<noscript><meta http-equiv="refresh" content="5"></noscript>
<script src="/page.js" defer></script>
</head>
<body>
<header><h1>${title}</h1><p id="link" role="status"></p></header>
<main>
${renderMain(content)}
</main>
</body>
</html>
`;
}

/** What is inside `main`: readiness, what is wrong, facts, tables. */
export function renderMain(content: PageContent): string {
  const state = content.isReady ? `<p class="ready good">ready</p>` : `<p class="ready bad">not ready</p>`;
  const wrong = content.ailments.map((ailment) => renderAilment(ailment, content.nowMs));
  return [
    state,
    wrong.length > 0 ? `<ul class="ailments">\n${wrong.join("\n")}\n</ul>` : "",
    `<dl>${content.facts.map(({ name, value }) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd>`).join("\n")}</dl>`,
    ...content.tables.map(renderTable),
    `<footer>${new Date(content.nowMs).toISOString()}</footer>`,
  ].join("\n");
}

function renderAilment(ailment: Ailment, nowMs: number): string {
  const cause = ailment.causedBy.length > 0 ? ` <em>follows from ${escapeHtml(ailment.causedBy.join(", "))}</em>` : "";
  const subject = ailment.subject === undefined ? "" : ` ${escapeHtml(ailment.subject)}`;
  const seconds = Math.max(0, Math.round((nowMs - ailment.sinceMs) / 1000));
  const kind = ailment.severity === "blocking" ? "bad" : "busy";
  return `<li class="${kind}"><code>${escapeHtml(ailment.code)}</code>${subject}: ${escapeHtml(ailment.sentence)}${cause} <small>for ${seconds} s</small></li>`;
}

function renderTable(table: StatusTable): string {
  const head = table.columns.map((column) => `<th scope="col">${escapeHtml(column)}</th>`).join("");
  const rows = table.rows.map(renderRow);
  const none = `<tr><td class="empty" colspan="${table.columns.length}">${escapeHtml(table.empty)}</td></tr>`;
  return `<section><h2>${escapeHtml(table.title)}</h2>
<div class="scroll"><table><thead><tr>${head}</tr></thead>
<tbody>${rows.length > 0 ? rows.join("\n") : none}</tbody></table></div></section>`;
}

function renderRow(row: StatusRow): string {
  const cells = row.cells.map((cell) => `<td>${escapeHtml(cell)}</td>`).join("");
  return `<tr${row.state ? ` class="${row.state}"` : ""}>${cells}</tr>`;
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Text that is safe between tags and inside quoted attributes. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (sign) => ENTITIES[sign] ?? sign);
}

/** Served as /page.css. */
export const pageCss = `
:root { color-scheme: light dark; --line: light-dark(#d5d9e0, #3a404a); --dim: light-dark(#5b6472, #9aa4b2);
  --good: light-dark(#116b34, #5fd38d); --busy: light-dark(#8a5a00, #f2b84b); --bad: light-dark(#b3261e, #ff8a80); }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1rem; }
header { display: flex; gap: 1rem; align-items: baseline; flex-wrap: wrap; }
h1 { font-size: 1.3rem; margin: 0; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
#link { color: var(--bad); margin: 0; }
.ready { font-weight: 600; margin: .6rem 0; } .ready::before { content: "● "; }
.good { color: var(--good); } .busy { color: var(--busy); } .bad { color: var(--bad); }
.ailments { padding-left: 1.2rem; } .ailments small, footer, .empty, dt { color: var(--dim); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--dim); font-weight: 600; }
tr.idle { color: var(--dim); } tr.good, tr.busy, tr.bad { color: inherit; }
tr.good td:first-child { box-shadow: inset 3px 0 var(--good); } tr.busy td:first-child { box-shadow: inset 3px 0 var(--busy); }
tr.bad td:first-child { box-shadow: inset 3px 0 var(--bad); } tbody td:first-child { padding-left: .6rem; }
footer { margin-top: 2rem; font-size: .85rem; }
`;

/** Served as /page.js: renews the page in place, so that scrolling and marked text stay. */
export const pageScript = `
"use strict";
const link = document.getElementById("link");
async function renew() {
  try {
    if (document.hidden || String(getSelection())) return;
    const answer = await fetch("/main.html", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(answer.status);
    const fresh = await answer.text();
    const main = document.querySelector("main");
    main.innerHTML = fresh;
    link.textContent = "";
  } catch {
    link.textContent = "no answer: this view is old";
  } finally {
    setTimeout(renew, 2000);
  }
}
setTimeout(renew, 2000);
`;
