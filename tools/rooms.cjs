// Who may import whom, bottom to top. A room may import itself and the rooms named, through their index.ts only.
module.exports = {
  async: [],
  telemetry: ["async"],
  admin: ["async", "telemetry"],
  gen: [],
  kernel: ["async", "telemetry"],
  journal: ["kernel", "async"],
  sriov: ["kernel", "async", "telemetry"],
  netdev: ["kernel", "async", "telemetry"],
  access: ["kernel", "async", "telemetry"],
  rpc: ["gen", "kernel", "async", "telemetry"],
  otlp: ["gen", "rpc", "async", "telemetry"],
  identity: ["gen", "rpc", "async", "telemetry"],
  kubelet: ["gen", "rpc", "async", "telemetry"],
  commands: ["admin", "kernel", "sriov", "access", "async", "telemetry"],
  nsm: ["gen", "rpc", "identity", "sriov", "netdev", "access", "async", "telemetry"],
};
