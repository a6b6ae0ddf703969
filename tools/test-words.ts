/** What `npm test -- --help` prints. */
export const usage = `npm test [-- WORD ...]

Without words: the check, and the whole forwarder in the sandbox (test/sandbox) and what needs a real kernel (test/real).
With words: only the files of those two whose path holds one of them, in network and mount namespaces of their own.

  npm test -- sandbox/restart real/netlink
  npm test -- test/sandbox/status.test.ts
`;

/** Files to run, or why none are run. */
export type Chosen =
  | { readonly kind: "files"; readonly files: readonly string[] }
  | { readonly kind: "none"; readonly why: string };

/** The files whose path holds one of the words; all where there are no words, and none where a word is in no path. */
export function chooseFiles(files: readonly string[], words: readonly string[]): Chosen {
  const lost = words.filter((word) => !files.some((file) => file.includes(word)));
  if (lost.length > 0) {
    const hint = "words are parts of paths below test/sandbox and test/real, for example sandbox/restart";
    return { kind: "none", why: `no test matches ${lost.join(", ")}; ${hint}` };
  }
  return {
    kind: "files",
    files: files.filter((file) => words.length === 0 || words.some((word) => file.includes(word))),
  };
}
