// The process of several test files, one after the other: each is a suite named as its file, and what it leaves open fails that suite.
import { after, suite } from "node:test";
import { pathToFileURL } from "node:url";
import { endSoon, failLeaks, whatIsOpen } from "./leaks.ts";
import { noteCosts } from "./test-costs.ts";
import { failUncaught } from "./uncaught.ts";

const paths = process.argv.slice(2);
const costs = noteCosts(`the process of ${paths.length} files from ${paths[0]}`);
const runnerHooks = failUncaught();

/** Tests may wait for a timer that keeps no process. Node's runner keeps a file's own process for them, but begins so in the middle. */
const awake = setInterval(() => {}, 1_000_000_000);

async function runFiles(): Promise<void> {
  for (const path of paths) {
    const known = whatIsOpen(); // also what a file has left that has failed for it
    runnerHooks.follow();
    await suite(path, async () => {
      try {
        await import(pathToFileURL(path).href);
        after(() => failLeaks(path, known));
      } finally {
        runnerHooks.rest(); // its tests are made, and run after this
      }
    });
    costs.done(path);
  }
  clearInterval(awake);
  if (whatIsOpen().length > 0) endSoon();
}

// Not awaited here: a process whose module waits ends with its last handle.
void runFiles();
