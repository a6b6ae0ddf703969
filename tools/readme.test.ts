import assert from "node:assert/strict";
import test from "node:test";
import { readmeProblem, withTable } from "./readme.ts";

test("withTable() replaces what stands between its lines and nothing else", () => {
  const readme =
    "# A\n<!-- variables: written by npm run gen from src/config.ts -->\nold\n<!-- end of variables -->\n## B\n";
  const once = withTable(readme, "| new |\n");
  assert.match(once, /^# A\n<!-- variables.*-->\n\n\| new \|\n\n<!-- end of variables -->\n## B\n$/);
  assert.equal(withTable(once, "| new |\n"), once);
});

test("withTable() says which lines are missing", () => {
  assert.throws(() => withTable("# A\n", "x"), /has no lines "<!-- variables/);
});

test("the README has the table of today's variables", () => {
  assert.equal(readmeProblem(), undefined);
});
