/**
 * Served as /page.js. Takes each new view over into the page that is there: only what differs is touched, so that focus,
 * marked text, open folds and the place on the page stay. What a reader did to the page (`open`, `tabindex`) is the reader's.
 */
export const pageScript = `
"use strict";
const main = document.querySelector("main");
const link = document.getElementById("link");
let skewMs = 0;

function becomes(now, next) {
  if (now.nodeType !== next.nodeType || now.nodeName !== next.nodeName || (now.id ?? "") !== (next.id ?? "")) {
    now.replaceWith(next);
    return;
  }
  if (now.nodeType !== Node.ELEMENT_NODE) {
    if (now.data !== next.data) now.data = next.data;
    return;
  }
  for (const { name } of [...now.attributes]) {
    if (!next.hasAttribute(name) && name !== "open" && name !== "tabindex") now.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (name !== "tabindex" && now.getAttribute(name) !== value) now.setAttribute(name, value);
  }
  if ("age" in now.dataset) return;
  const known = new Map([...now.children].filter(({ id }) => id).map((child) => [child.id, child]));
  let at = now.firstChild;
  for (const child of [...next.childNodes]) {
    const same = child.id ? known.get(child.id) : at?.id ? undefined : at;
    if (!same) {
      now.insertBefore(child, at);
      continue;
    }
    if (same !== at) now.insertBefore(same, at);
    else at = at.nextSibling;
    becomes(same, child);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function count() {
  for (const time of document.querySelectorAll("time[data-age]")) {
    const seconds = Math.round(Math.abs(Date.now() - skewMs - Date.parse(time.dateTime)) / 1000);
    const text = seconds < 120 ? seconds + " s" : seconds < 7200 ? Math.round(seconds / 60) + " min"
      : seconds < 172800 ? Math.round(seconds / 3600) + " h" : Math.round(seconds / 86400) + " days";
    if (time.textContent !== text) time.textContent = text;
  }
}

function roam(event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const tile = event.target.closest?.(".tiles a");
  if (!tile) return;
  const tiles = [...tile.closest(".tiles").querySelectorAll("a")];
  const ends = { Home: tiles[0], End: tiles.at(-1) };
  const next = step ? tiles[tiles.indexOf(tile) + step] : ends[event.key];
  if (!next) return;
  event.preventDefault();
  next.focus();
}

function oneTabStop(tile) {
  for (const other of tile.closest(".tiles").querySelectorAll("a")) other.tabIndex = other === tile ? 0 : -1;
}

function eachTabStop() {
  for (const tiles of document.querySelectorAll(".tiles")) {
    if (!tiles.querySelector('a[tabindex="0"]')) oneTabStop(tiles.querySelector("a"));
    for (const fresh of tiles.querySelectorAll("a:not([tabindex])")) fresh.tabIndex = -1;
  }
}

function follow() {
  const events = new EventSource("/events");
  events.onmessage = ({ data }) => {
    const next = document.createElement("main");
    next.innerHTML = JSON.parse(data);
    becomes(main, next);
    skewMs = Date.now() - Number(document.getElementById("seen").dataset.seen);
    document.title = document.title.replace(/^./u, document.querySelector("#ready.good") ? "●" : "▲");
    link.textContent = "live";
    link.className = "live";
    eachTabStop();
    count();
  };
  events.onerror = () => {
    link.textContent = "no answer: this view is old";
    link.className = "old";
    if (events.readyState === EventSource.CLOSED) setTimeout(() => follow(), 3000);
  };
}

skewMs = Date.now() - Number(document.getElementById("seen").dataset.seen);
document.addEventListener("keydown", roam);
document.addEventListener("focusin", ({ target }) => target.closest(".tiles a") && oneTabStop(target));
setInterval(count, 1000);
eachTabStop();
follow();
`;
