// Loaded before a test file: fails the file when its tests are done and something it opened is still open.
import { after } from "node:test";
import { endSoon, failLeaks } from "./leaks.ts";

after(async () => {
  try {
    await failLeaks(process.argv[1] ?? "");
  } catch (error) {
    endSoon();
    throw error;
  }
});
