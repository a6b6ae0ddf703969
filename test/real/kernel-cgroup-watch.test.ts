import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { needs } from "../needs.ts";

const module = new URL("../../src/kernel/index.ts", import.meta.url).href;
const SCRIPT = `
  import { BlockingWrites, CgroupFolder } from ${JSON.stringify(module)};
  import { mkdtempSync, rmdirSync } from "node:fs";
  const [watched, blind] = ["a", "b"].map((name) => mkdtempSync("/tmp/watch-" + name));
  const codeOf = (path) => {
    let reported = "none";
    CgroupFolder.open(path, new BlockingWrites()).onChange(() => {}, (code) => (reported = code));
    return reported;
  };
  console.log(codeOf(watched), codeOf(blind));
  for (const path of [watched, blind]) rmdirSync(path);
  process.exit();
`;

test("CgroupFolder.onChange() says when the kernel has no watch left", (t) => {
  if (!needs(t, "userns")) return;
  const limit = 'echo 1 > /proc/sys/user/max_inotify_watches && exec "$0" --input-type=module -e "$1"';
  const { stdout, stderr } = spawnSync("unshare", ["-rU", "sh", "-c", limit, process.execPath, SCRIPT], {
    encoding: "utf8",
  });
  assert.equal(stdout.trim(), "none ENOSPC", stderr);
});
