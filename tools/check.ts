// npm run check: everything that can be known without privileges.
import { runChecks } from "./check-steps.ts";

const { failed, counts } = await runChecks((line) => process.stderr.write(`${line}\n`));
if (failed.length > 0) process.stderr.write(`check: failed: ${failed.join(", ")}\n`);
for (const { name, why } of counts.skips) process.stderr.write(`skipped: ${name}: ${why}\n`);
process.exitCode = failed.length > 0 || counts.failed > 0 ? 1 : 0;
