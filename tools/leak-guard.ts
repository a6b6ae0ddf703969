// Loaded before a test file: fails the file when its tests are done and something it opened is still open.
import { after, beforeEach } from "node:test";
import { endSoon, failLeaks } from "./leaks.ts";
import { noteCosts } from "./test-costs.ts";
import { failUncaught } from "./uncaught.ts";

noteCosts(process.argv[1] ?? "");
const runnerHooks = failUncaught();
runnerHooks.follow();
beforeEach(() => runnerHooks.rest()); // the suites of the file are made when its first test begins

after(async () => {
  try {
    await failLeaks(process.argv[1] ?? "");
  } catch (error) {
    endSoon();
    throw error;
  }
});
