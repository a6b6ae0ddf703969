// Runs in the browser, served as /page.js. Takes each new view over into the page that is there: only what differs is touched, so that
// focus, marked text, open folds and the place on the page stay. What a reader did to the page (`open`, `tabindex`) is the reader's.

/** After the server has ended the stream; a browser tries again by itself only where a connection broke. */
const RETRY_MS = 3000;

const main = find("main");
const link = find("#link");
/** How far this machine's clock is ahead of the node's. */
let skewMs = 0;

/** @param {string} selector */
function find(selector) {
  const found = document.querySelector(selector);
  if (!(found instanceof HTMLElement)) throw new Error(`The page has no ${selector}`);
  return found;
}

/**
 * Makes the node that is there equal to the next one.
 * @param {ChildNode} now
 * @param {ChildNode} next
 */
function become(now, next) {
  if (now.nodeType !== next.nodeType || now.nodeName !== next.nodeName || idOf(now) !== idOf(next)) {
    now.replaceWith(next);
  } else if (now instanceof Element && next instanceof Element) {
    takeAttributes(now, next);
    // A time counts on by itself.
    if (!now.hasAttribute("data-age")) takeChildren(now, next);
  } else if (now.nodeValue !== next.nodeValue) {
    now.nodeValue = next.nodeValue;
  }
}

/**
 * @param {Element} now
 * @param {Element} next
 */
function takeAttributes(now, next) {
  for (const { name } of [...now.attributes]) {
    if (!next.hasAttribute(name) && name !== "open" && name !== "tabindex") now.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (name !== "tabindex" && now.getAttribute(name) !== value) now.setAttribute(name, value);
  }
}

/**
 * What has an id is moved, what has none is taken by its place.
 * @param {Element} now
 * @param {Element} next
 */
function takeChildren(now, next) {
  const known = new Map([...now.children].filter(({ id }) => id).map((child) => [child.id, child]));
  let at = now.firstChild;
  for (const child of [...next.childNodes]) {
    const id = idOf(child);
    const byPlace = at && idOf(at) ? undefined : at;
    const same = id ? known.get(id) : byPlace;
    if (!same) {
      now.insertBefore(child, at);
      continue;
    }
    if (same !== at) now.insertBefore(same, at);
    else at = at.nextSibling;
    become(same, child);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

/** @param {Node} node */
function idOf(node) {
  return node instanceof Element ? node.id : "";
}

function countAges() {
  for (const time of document.querySelectorAll("time")) {
    if (!time.hasAttribute("data-age")) continue;
    const text = describeAge(Math.abs(Date.now() - skewMs - Date.parse(time.dateTime)));
    if (time.textContent !== text) time.textContent = text;
  }
}

/**
 * As the server writes it: page.ts.
 * @param {number} ms
 */
function describeAge(ms) {
  const seconds = Math.round(ms / 1000);
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} days`;
}

/**
 * The tiles of a PF are one stop of the tab key; within them the arrows lead.
 * @param {KeyboardEvent} event
 */
function moveBetweenTiles(event) {
  const tile = tileOf(event.target);
  if (!tile) return;
  const tiles = neighboursOf(tile);
  const at = tiles.indexOf(tile);
  const aims = {
    ArrowRight: at + 1,
    ArrowDown: at + 1,
    ArrowLeft: at - 1,
    ArrowUp: at - 1,
    Home: 0,
    End: tiles.length - 1,
  };
  const aim = Object.entries(aims).find(([key]) => key === event.key);
  const next = aim && tiles[aim[1]];
  if (!next) return;
  event.preventDefault();
  next.focus();
}

/**
 * @param {EventTarget | null} target
 * @returns {HTMLAnchorElement | null}
 */
function tileOf(target) {
  return target instanceof Element ? target.closest(".tiles a") : null;
}

/**
 * @param {Element} tile
 * @returns {HTMLAnchorElement[]}
 */
function neighboursOf(tile) {
  return [...(tile.closest(".tiles")?.querySelectorAll("a") ?? [])];
}

/** @param {Element} tile */
function makeTabStop(tile) {
  for (const other of neighboursOf(tile)) other.tabIndex = other === tile ? 0 : -1;
}

function setTabStops() {
  for (const tiles of document.querySelectorAll(".tiles")) {
    const first = tiles.querySelector("a");
    if (first && !tiles.querySelector('a[tabindex="0"]')) makeTabStop(first);
    for (const fresh of tiles.querySelectorAll("a")) if (!fresh.hasAttribute("tabindex")) fresh.tabIndex = -1;
  }
}

function readSkew() {
  skewMs = Date.now() - Number(find("#seen").dataset["seen"]);
}

/** @param {string} content what is inside `main` */
function show(content) {
  const next = document.createElement("main");
  next.innerHTML = content;
  become(main, next);
  readSkew();
  document.title = document.title.replace(/^./u, document.querySelector("#ready.good") ? "●" : "▲");
  link.textContent = "live";
  link.className = "live";
  setTabStops();
  countAges();
}

function follow() {
  const events = new EventSource("/events");
  events.onmessage = ({ data }) => show(JSON.parse(data));
  events.onerror = () => {
    link.textContent = "no answer: this view is old";
    link.className = "old";
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, RETRY_MS);
  };
}

readSkew();
document.addEventListener("keydown", moveBetweenTiles);
document.addEventListener("focusin", ({ target }) => {
  const tile = tileOf(target);
  if (tile) makeTabStop(tile);
});
setInterval(countAges, 1000);
setTabStops();
follow();
