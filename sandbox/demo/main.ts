// npm start: the forwarder on a pretend node, with every step shown and checked as it happens.
import { systemClock } from "../../src/async/index.ts";
import { enterOwnNamespaces } from "./namespaces.ts";
import { readOptions, usage } from "./options.ts";
import { Screen } from "./screen.ts";

const options = readOptions(process.argv.slice(2));
if (options === undefined) {
  process.stderr.write(`npm start: unknown arguments ${process.argv.slice(2).join(" ")}\n\n${usage}`);
  process.exit(2);
}
if (options.isHelpWanted) {
  process.stdout.write(usage);
  process.exit(0);
}

const privileges = await enterOwnNamespaces(process.argv.slice(1), { isPageWanted: !options.isOnce });
if (privileges.kind === "handed-on") process.exit(privileges.exitCode);

const stop = new AbortController();
// npm and the terminal may both pass a Ctrl-C on: one is enough, the clean-up must not be cut short by the second.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => stop.abort());

process.stdout.on("error", () => stop.abort()); // its reader has gone: npm start | head

// Loaded here: what only helps or hands on has no use for a whole forwarder.
const { runDemo } = await import("./story.ts");
const screen = new Screen(process.stdout, { noColour: (process.env["NO_COLOR"] ?? "") !== "" });
const held = await runDemo({
  ...options,
  whyNoLinks: privileges.whyNoLinks,
  pageDoor: privileges.pageDoor,
  screen,
  clock: systemClock,
  stop: stop.signal,
});
process.exit(held ? 0 : 1);
