// ARCHITECTURE's invariant: what is so of a VF is in its record of the inventory, and in no collection of another module. pci knows no record.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { sourcePaths } from "../tools/source.ts";

/** Fields and variables of PCI addresses outside the inventory's module, each with why it may be. */
const allowed: Readonly<Record<string, string>> = {
  "src/node/host-use-watch.ts #free": "what the last observation covered, to see who comes back",
  "src/node/withhold-host-use.ts #pfs": "by PF",
  "src/node/node-watch.ts #todo": "work to do: VFs whose driver is to be read",
  "src/node/pf-claims.ts #locks": "by PF",
  "src/node/pf-claims.ts #refused": "by PF",
  "src/node/pf-carriers.ts #links": "by PF",
  "src/node/pf-survey.ts #doors": "by PF",
  "src/node/pf-survey.ts #faults": "by PF",
  "src/node/pf-survey.ts #pfs": "by PF",
  "src/node/pfs-without-vfs.ts #requested": "by PF",
  "src/node/pfs-without-vfs.ts #had": "by PF",
  "src/node/pfs-without-vfs.ts #problems": "by PF",
  "src/node/pfs-without-vfs.ts #refused": "by PF",
  "src/node/pfs-without-vfs.ts #usedByHost": "by PF",
  "src/reconcile/gone-vfs.ts #absentSinceMs": "VFs that the node does not have: there is no record of them",
  "src/reconcile/reconcile.ts #cleaning": "work under way, for a stop to wait for",
  "src/reconcile/reconcile.ts #queue": "work under way, one at a time for a VF",
  "src/reconcile/reconcile.ts #todo": "work to do: VFs to be observed soon",
  "src/mechanisms/connection-journal.ts vfs": "the journal: what the disk has",
  "src/mechanisms/kept-vfs.ts #settings": "the journal: what the disk has",
  "src/mechanisms/kept-vfs.ts vfs": "the journal: what the disk has",
  "src/mechanisms/unrestored-vfs.ts #all": "the journal: what the disk has",
};

const COLLECTION = /(?:Map|Set|KeyedQueue)<(?:PciAddress|VfRecord)\b/;

/** Where a field is declared or a variable made that holds such a collection; parameters and answers pass. */
function collections(path: string): readonly string[] {
  const lines = readFileSync(path, "utf8").split("\n");
  return lines.flatMap((line) => {
    const declared =
      /^ +(?:(?:private |static )?(?:readonly )?(#\w+|\w+)(?:: [^=(]*|) ?[=;:]|(?:const|let) (\w+))/.exec(line);
    const isMade = /= new /.test(line) || /^ +readonly /.test(line) || /^ +#/.test(line);
    const name = declared?.[1] ?? declared?.[2];
    return COLLECTION.test(line) && isMade && name ? [`${path} ${name}`] : [];
  });
}

test("no module but the inventory's keeps a collection by VF, but those that are listed with a reason", () => {
  const sources = sourcePaths().filter((path) => {
    return /^src\/(?!inventory\/|pci\/|gen\/|commands\/)/.test(path) && !path.endsWith(".test.ts");
  });
  assert.ok(sources.length > 200);
  assert.deepEqual([...new Set(sources.flatMap(collections))].sort(), Object.keys(allowed).sort());
});
