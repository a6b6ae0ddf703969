import { isLoopback, type NodeView } from "../../admin/index.ts";
import type { Given, Surroundings } from "../command.ts";
import { wrap } from "../text.ts";
import { fetchView, NoViewError, watchViews } from "./fetch-view.ts";
import { pictureText } from "./picture.ts";

const LIMIT_MS = 5_000;
const RETRY_MS = 1_000;

/** Shows what a running forwarder says of its node. */
export async function status(given: Given, surroundings: Surroundings): Promise<number> {
  const { err, environment } = surroundings;
  const listenOn = environment.settings.adminListenOn;
  const [base = listenOn && urlOf(listenOn)] = given.values("url");
  if (base === undefined) {
    err.write("forwarder status: NSM_ADMIN_LISTEN_ON is off here: nothing reports the status\n");
    return 1;
  }
  if (!given.has("url") && listenOn && !isLoopback(listenOn.host)) {
    err.write(
      `forwarder status: NSM_ADMIN_LISTEN_ON is ${listenOn.host}:${listenOn.port}, where only SVIDs of its trust domain are answered; ask from loopback: set it to localhost:${listenOn.port}\n`,
    );
    return 1;
  }
  if (!/^https?:$/.test(URL.parse(base)?.protocol ?? "")) {
    err.write(`forwarder status: --url is "${base}": want http://localhost:9871\n`);
    return 2;
  }
  const origin = new URL(base).origin;
  return given.has("watch") ? watch(origin, given, surroundings) : once(origin, given, surroundings);
}

function urlOf({ host, port }: { readonly host: string; readonly port: number }): string {
  return `http://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

async function once(base: string, given: Given, { out, err, signal }: Surroundings): Promise<number> {
  try {
    const view = await fetchView(base, AbortSignal.any([signal, AbortSignal.timeout(LIMIT_MS)]));
    const text = pictureText(view, out, { isWhole: given.has("all") });
    out.write(given.has("json") ? `${JSON.stringify(view, undefined, 1)}\n` : text);
    return view.isReady ? 0 : 1;
  } catch (error) {
    if (!(error instanceof NoViewError)) throw error;
    err.write(`forwarder status: ${error.message}\n`);
    return 1;
  }
}

/** Until its signal is aborted; a forwarder that restarts is waited for. */
async function watch(base: string, given: Given, surroundings: Surroundings): Promise<number> {
  const { out, err, clock, signal } = surroundings;
  const show = screenOf(given, surroundings);
  let lastProblem = "";
  show.open();
  try {
    while (!signal.aborted) {
      try {
        for await (const view of watchViews(base, signal)) {
          show.view(view);
          lastProblem = "";
        }
      } catch (error) {
        if (signal.aborted) break;
        if (!(error instanceof NoViewError)) throw error;
        const line = `forwarder status: ${error.message}`;
        if (error.message !== lastProblem && out.isScreen) out.write(`\n${wrap(line, out.columns).join("\n")}\n`);
        else if (error.message !== lastProblem) err.write(`${line}\n`);
        lastProblem = error.message;
      }
      await clock.sleep(RETRY_MS, signal).catch(() => {}); // its signal was aborted
    }
    return 0;
  } finally {
    show.close();
  }
}

interface Screen {
  open(): void;
  view(view: NodeView): void;
  close(): void;
}

// Private modes of xterm: another screen, so that what was there before comes back.
const OTHER_SCREEN = "\u001b[?1049h";
const FIRST_SCREEN = "\u001b[?1049l";
const HOME_AND_CLEAR = "\u001b[H\u001b[J";

/** A screen is drawn over; a file or another program gets one picture after the other, or one JSON document a line. */
function screenOf(given: Given, { out }: Surroundings): Screen {
  const isWhole = given.has("all");
  const nothing = () => {};
  if (given.has("json")) {
    return { open: nothing, close: nothing, view: (view) => out.write(`${JSON.stringify(view)}\n`) };
  }
  if (!out.isScreen) {
    return { open: nothing, close: nothing, view: (view) => out.write(`${pictureText(view, out, { isWhole })}\n`) };
  }
  return {
    open: () => out.write(OTHER_SCREEN),
    view: (view) => out.write(HOME_AND_CLEAR + fitted(pictureText(view, out, { isWhole }), out.rows)),
    close: () => out.write(FIRST_SCREEN),
  };
}

function fitted(text: string, rows: number): string {
  const lines = text.trimEnd().split("\n");
  if (lines.length < rows) return `${lines.join("\n")}\n`;
  const shown = lines.slice(0, Math.max(1, rows - 2));
  return `${shown.join("\n")}\n… ${lines.length - shown.length} more lines\n`;
}
