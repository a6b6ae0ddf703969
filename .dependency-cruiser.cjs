// The import rule (tools/modules.cjs) and the doors: which outside thing may be imported where.
const modules = require("./tools/modules.cjs");
const names = Object.keys(modules);
const testFile = "[.]test[.]ts$";
// What tests play with beside the code: whatever a folder `testing` has, and the log that keeps its lines.
const fakes = ["^src/.*/testing/", "^src/telemetry/recording-log[.]ts$"];
// Who may touch the disk, and for what. A simulation hands in what is behind the first two; the others are the kernel's own files.
const disk = {
  "kernel/disk": "the journal's files, as an interface",
  "kernel/files-below": "files that a mask names",
  "kernel/host-files": "files of sysfs and the host, as an interface",
  "kernel/cgroup-folder": "cgroups, which are folders",
  "kernel/device-holders": "/proc: which process has a device open",
  "kernel/exclusive-lock": "flock(2) is on a file",
  "kernel/netns": "namespaces are files of /proc; a process that has to end says why in one",
  "kernel/unix-listeners": "/proc: who listens on a unix socket",
  "kernel/unix-socket": "a unix socket has a file",
  "kernel/watch-folder": "inotify(7)",
  "kernel/small-file": "a file that a person wrote, which may be anything",
  "kernel/write-refusal": "whether the kernel would let a write through",
  "rpc/http2/listen": "folder and file of the socket",
  "admin/page-files": "files of the page, where they are not in the bundle",
};
const filesOf = (reasons) =>
  Object.keys(reasons)
    .map((file) => `^src/${file}[.]ts$`)
    .join("|");
const doors = {
  "^(node:)?fs(/|$)": filesOf(disk),
  "^(node:)?(tls|http2|dgram)$": "^src/rpc/http2/",
  "^(node:)?net$": "^src/rpc/http2/|^src/admin/(listener|loopback)[.]ts$",
  "^(node:)?http$": "^src/admin/",
  "^(node:)?child_process$": "^$",
  "^(node:)?worker_threads$": "^$",
  "node_modules/koffi/": "^src/kernel/native[.]ts$",
  "node_modules/@grpc/": "^$",
  "^(node:)?vm$": "^src/opa/compiled-policy[.]ts$",
  "node_modules/@open-policy-agent/": "^src/opa/compiled-policy[.]ts$",
  "node_modules/yaml/": "^src/pci/pf-config[.]ts$",
  "node_modules/pino/": "^src/telemetry/",
  "node_modules/prom-client/": "^src/telemetry/",
};
// The folders of nsm, bottom to top, and what each may import of the others. Beneath them are some files, above them service.ts.
const nsmFolders = {
  mechanism: [],
  permission: [],
  endpoint: ["mechanism", "permission"],
  monitor: ["permission"],
  registry: ["mechanism", "permission"],
  request: ["mechanism", "permission", "endpoint", "monitor"],
};
const nsmBase = "(fault|grpc-status|path|peers)[.]ts";
// Above the modules: what forwarder.ts fits together, and what main.ts does as a process of the operating system.
const aboveModules = "^src/(composition|process)/";
const rule = (name, from, to) => ({ name, severity: "error", from, to });
module.exports = {
  forbidden: [
    ...names.map((module) =>
      rule(
        `${module}-imports-only-below`,
        { path: `^src/${module}/`, pathNot: testFile },
        {
          path: "^(src|sandbox|lab|test|tools|bench|interop)/",
          pathNot: `^src/(${[module, ...modules[module]].join("|")})/`,
        },
      ),
    ),
    ...Object.entries(nsmFolders).map(([folder, below]) =>
      rule(
        `nsm-${folder}-imports-only-below`,
        { path: `^src/nsm/${folder}/`, pathNot: testFile },
        { path: "^src/nsm/", pathNot: `^src/nsm/((${[folder, ...below].join("|")})/|${nsmBase})` },
      ),
    ),
    rule(
      "nsm-base-imports-no-folder",
      { path: `^src/nsm/${nsmBase}` },
      { path: "^src/nsm/", pathNot: `^src/nsm/${nsmBase}` },
    ),
    ...Object.entries(doors).map(([thing, who], i) =>
      rule(`one-door-${i}`, { path: "^src/", pathNot: [who, testFile] }, { path: thing }),
    ),
    rule("no-cycles", {}, { circular: true }),
    rule(
      "through-the-door",
      { path: "^src/([^/]+)/", pathNot: testFile },
      { path: "^src/([^/]+)/", pathNot: ["^src/$1/", "/index[.]ts$", "^src/gen/", ...fakes] },
    ),
    rule(
      "top-through-the-door",
      { path: "^src/[^/]+[.]ts$|^sandbox/" },
      {
        path: "^src/[^/]+/",
        pathNot: [
          aboveModules,
          "/index[.]ts$",
          "^src/gen/",
          "^src/(pci/nearest|identity/spiffe-id-pattern)[.]ts$",
          ...fakes,
        ],
      },
    ),
    rule("not-own-door", { path: "^src/([^/]+)/" }, { path: "^src/$1/index[.]ts$" }),
    // The composition root may name the type of what main hands it, and must not read the environment's table itself.
    rule(
      "main-reads-config",
      { pathNot: `^src/(main|forwarder|process/run-forwarder)[.]ts$|^(tools|sandbox|test|bench|interop)/|${testFile}` },
      { path: "^src/config[.]ts$" },
    ),
    rule(
      "forwarder-knows-config-as-type",
      { path: "^src/(forwarder|process/run-forwarder)[.]ts$" },
      { path: "^src/config[.]ts$", dependencyTypesNot: ["type-only"] },
    ),
    rule(
      "production-knows-no-tests",
      { path: "^src/", pathNot: testFile },
      { path: `${testFile}|^(sandbox|lab|test|bench|interop)/` },
    ),
    rule("production-knows-no-fakes", { path: "^src/", pathNot: [testFile, ...fakes] }, { path: fakes }),
    // What carries calls, and what calls are, know of each other what transport.ts says.
    rule(
      "calls-know-their-transport-only",
      { path: "^src/rpc/", pathNot: [testFile, "^src/rpc/(http2/|(index|stream-server)[.]ts$)"] },
      { path: "^src/rpc/http2/", pathNot: "^src/rpc/http2/transport[.]ts$" },
    ),
    rule(
      "transports-know-no-calls",
      { path: "^src/rpc/(http2|testing)/", pathNot: testFile },
      {
        path: "^src/rpc/",
        pathNot: "^src/rpc/((http2|testing)/|(transport|connection|rpc-limits|metadata|status|target)[.]ts$)",
      },
    ),
    // A pretended node names the links of the namespace that it is in: what starts a forwarder on one asks first whose that is. A simulated
    // one has links of its own, and none of this kernel's.
    rule(
      "forwarder-only-in-own-netns",
      { path: "^(sandbox|test|bench|interop)/", pathNot: "^sandbox/(start-forwarder|simulation/simulation)[.]ts$" },
      { path: "^src/(forwarder|process/run-forwarder)[.]ts$", dependencyTypesNot: ["type-only"] },
    ),
    rule("lab-is-black-box", { path: "^lab/" }, { path: "^src/", pathNot: "^src/gen/" }),
    rule("nothing-unknown", { path: "^src/[^/]+/", pathNot: [`^src/(${names.join("|")})/`, aboveModules] }, {}),
    rule(
      "only-forwarder-composes",
      { path: "^src/", pathNot: ["^src/forwarder[.]ts$", "^src/composition/", testFile] },
      { path: "^src/composition/" },
    ),
    rule(
      "only-main-is-a-process",
      { path: "^src/", pathNot: ["^src/main[.]ts$", "^src/process/", testFile] },
      { path: "^src/process/" },
    ),
    rule("no-unresolvable", {}, { couldNotResolve: true }),
  ],
  options: {
    tsPreCompilationDeps: true,
    parser: "swc",
    doNotFollow: { path: "node_modules" },
    enhancedResolveOptions: {
      extensions: [".ts", ".js"],
      exportsFields: ["exports"],
      conditionNames: ["import", "node"],
    },
  },
};
