import type { Command } from "./command.ts";

/** All commands, in the order of their use. What does the work is loaded with the command, not with the list. */
export const commands: readonly Command[] = [
  {
    name: "discover",
    summary: "print a PF configuration for this node",
    about: [
      "Prints a PF configuration with every physical function of this node that can be used. Comments say why",
      "each value was chosen, and why each other network adapter was left out. Changes nothing on the node.",
    ],
    options: [
      {
        name: "service-domain",
        short: "s",
        value: "NAME",
        isMultiple: true,
        says: "the network that the adapters' cables lead to; may be given several times",
      },
      {
        name: "pf",
        short: "p",
        value: "PF",
        isMultiple: true,
        says: "only this physical function, by PCI address or network device; may be given several times",
      },
    ],
    examples: [
      { line: "forwarder discover -s worker.domain > sriov.config", says: "a file to look through and to use" },
      { line: "forwarder discover -p ens6f3", says: "only one port" },
    ],
    exitCodes: [
      { code: 0, says: "printed" },
      { code: 1, says: "no physical function can be used, or one that was asked for is not there" },
    ],
    run: async (given, surroundings) => (await import("./discover/run.ts")).discover(given, surroundings),
  },
  {
    name: "check",
    summary: "say what on this node keeps clients from getting a VF, and what to do",
    about: [
      "Looks at every precondition of KERNEL and VFIO: the PF configuration and each physical function in it, drivers,",
      "IOMMU, cgroups, sockets, folders, capabilities. For each finding it says what is so, why it matters and what to",
      "do. Reads the same variables as the forwarder: run it where the forwarder runs. Changes nothing on the node.",
    ],
    options: [
      {
        name: "mechanism",
        short: "m",
        value: "NAME",
        words: ["KERNEL", "VFIO", "kernel", "vfio"],
        isMultiple: true,
        says: "only what concerns KERNEL, or VFIO",
      },
      { name: "quiet", short: "q", says: "leave out what is well" },
      { name: "json", short: "j", says: "for programs" },
    ],
    examples: [
      { line: "forwarder check", says: "on the node, or: kubectl exec POD -- forwarder check" },
      { line: "forwarder check -q -m KERNEL", says: "only problems, on a node without an IOMMU" },
      { line: "forwarder check --json | jq '.findings[] | select(.level == \"fail\")'", says: "in a script" },
    ],
    exitCodes: [
      { code: 0, says: "both mechanisms, or those that were named, can work here" },
      { code: 1, says: "one of them cannot" },
    ],
    run: async (given, surroundings) => (await import("./check/run.ts")).check(given, surroundings),
  },
  {
    name: "status",
    summary: "show what a running forwarder says of its node",
    about: [
      "Asks the forwarder that runs here, at NSM_ADMIN_LISTEN_ON: what is wrong first, then physical functions, the virtual",
      "ones that clients have or that are not well, connections, what kubelet is offered, and the latest warnings.",
    ],
    options: [
      { name: "watch", short: "w", says: "show each change as it comes, until interrupted" },
      { name: "all", short: "a", says: "also VFs that are idle and well, and older warnings" },
      { name: "json", short: "j", says: "for programs; with --watch one document a line" },
      {
        name: "url",
        short: "u",
        value: "URL",
        says: "another place than NSM_ADMIN_LISTEN_ON, such as a forwarded port",
      },
    ],
    examples: [
      { line: "kubectl exec POD -- forwarder status", says: "the node of a pod" },
      { line: "forwarder status --watch", says: "live, on the node" },
      {
        line: "forwarder status --json | jq '.pfs[].vfs[] | select(any(.conditions[]; .effect != \"inform\"))'",
        says: "every VF that is not well",
      },
    ],
    exitCodes: [
      { code: 0, says: "it is ready" },
      { code: 1, says: "it is not ready, or cannot be reached" },
    ],
    run: async (given, surroundings) => (await import("./status/run.ts")).status(given, surroundings),
  },
  {
    name: "completion",
    summary: "print a script that lets a shell complete all this",
    about: ["Prints the script for one shell: commands, options, and the values of those that have few."],
    argument: { name: "SHELL", words: ["bash", "zsh", "fish"] },
    options: [],
    examples: [
      { line: "source <(forwarder completion bash)", says: "bash, in ~/.bashrc" },
      { line: "source <(forwarder completion zsh)", says: "zsh, in ~/.zshrc after compinit" },
      { line: "forwarder completion fish > ~/.config/fish/completions/forwarder.fish", says: "fish" },
    ],
    exitCodes: [{ code: 0, says: "printed" }],
    run: async (given, surroundings) => (await import("./completion/run.ts")).completion(given, surroundings, commands),
  },
];
