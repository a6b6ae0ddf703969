// What `forwarder WORD` does besides running: discover, check, status, completion, and the help of all of them.
// Facts are read in one place of a command and judged in another, which touches nothing; a module that knows is queried, so
// that a command cannot say other than the forwarder does. Never writes to the node, and never reads the environment itself.
// Start reading at commands.ts: the list of them.
export type { BudgetFact, CommandSettings, PolicyFact, Terminal } from "./command.ts";
export { runCommandLine } from "./run.ts";
