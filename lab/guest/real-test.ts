import { spawn } from "node:child_process";
import { createWriteStream } from "node:fs";

/** Where the host has bundled them. */
const FOLDER = "/project/lab/.cache/build/real";

/**
 * Runs a test file of the project in a process and namespaces of its own, as `npm test` does.
 * @throws with the end of what it said when a test failed, or when none ran.
 */
export async function runRealTest(name: string, promises: string): Promise<void> {
  const env = { ...process.env, TEST_PROMISES: promises };
  const args = ["--net", "--mount", process.execPath, "--test-reporter=spec", `${FOLDER}/${name}.mjs`];
  const child = spawn("unshare", args, { env, stdio: ["ignore", "pipe", "pipe"] });
  const log = createWriteStream(`/out/${name}.log`);
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (data: Buffer) => {
      log.write(data);
      said += data;
    });
  }
  const status = await new Promise((resolve) => child.once("close", resolve));
  log.end();
  const passed = Number(/ pass (\d+)/.exec(said)?.[1] ?? 0);
  if (status !== 0 || passed === 0)
    throw new Error(`${name} ended with ${status}, ${passed} passed:\n${said.slice(-3000)}`);
}
