import assert from "node:assert/strict";
import { test } from "node:test";
import { runInNewContext } from "node:vm";
import { describeAge } from "./page.ts";
import { pageScript } from "./page-files.ts";

test("the page's script writes an age as the server does: the text does not change when the page is live", () => {
  const [text] = /^function describeAge\(ms\) \{\n.*?^\}/ms.exec(pageScript) ?? assert.fail("it has no describeAge()");
  const theirs = runInNewContext(`(${text})`) as typeof describeAge;
  const edges = [0, 499, 500, 119_499, 119_500, 7_199_499, 7_199_500, 172_799_499, 172_799_500, 1e10];
  assert.deepEqual(edges.map(theirs), edges.map(describeAge));
  assert.deepEqual([describeAge(119_499), describeAge(1e10)], ["119 s", "116 days"]);
});
