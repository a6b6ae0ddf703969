// The process of one attacker: reads what it is told from standard input, attacks, says what it has seen, and ends.
import { text } from "node:stream/consumers";
import * as calls from "./calls.ts";
import * as endpoints from "./endpoints.ts";
import * as namespaces from "./namespaces.ts";
import * as none from "./nothing.ts";
import * as sockets from "./sockets.ts";
import type { Attacker, Target } from "./target.ts";
import * as watches from "./watches.ts";

const attackers: Readonly<Record<string, Attacker>> = {
  ...calls,
  ...endpoints,
  ...sockets,
  ...namespaces,
  ...none,
  ...watches,
};

const target = JSON.parse(await text(process.stdin)) as Target;
const attack = attackers[target.attack];
if (!attack) throw new Error(`no attacker is called ${target.attack}`);
const over = new AbortController();
process.on("SIGTERM", () => over.abort());
// It ends by that signal; this holds it, whatever else it waits for.
setInterval(() => {}, 1_000);
process.stdout.write("begins\n");
// What an attacker says of itself is of no interest when the other side ends it in the middle.
const seen = await attack(target, over.signal);
process.stdout.write(`${seen}\n`, () => process.exit(0));
