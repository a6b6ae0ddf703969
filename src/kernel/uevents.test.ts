import assert from "node:assert/strict";
import { test } from "node:test";
import { parseUevent } from "./uevents.ts";

// unshare -n python3 -c 'import socket, subprocess
// s = socket.socket(16, socket.SOCK_RAW, 15); s.bind((0, 1))
// subprocess.run("ip link add name v0 type veth peer name v1".split()); print(s.recv(9000).hex())'   (Linux 6.18)
const added =
  "616464402f646576696365732f7669727475616c2f6e65742f763100414354494f4e3d61646400444556504154483d2f646576696365732f7669727" +
  "475616c2f6e65742f76310053554253595354454d3d6e657400494e544552464143453d7631004946494e4445583d32005345514e554d3d3637353700";

test("parseUevent() reads what the kernel says of a new network device", () => {
  assert.deepEqual(parseUevent(Buffer.from(added, "hex")), {
    action: "add",
    devpath: "/devices/virtual/net/v1",
    subsystem: "net",
    fields: {
      ACTION: "add",
      DEVPATH: "/devices/virtual/net/v1",
      SUBSYSTEM: "net",
      INTERFACE: "v1",
      IFINDEX: "2",
      SEQNUM: "6757",
    },
  });
});

test("parseUevent() ignores what is not from the kernel", () => {
  for (const text of ["libudev\0\xfe\xed", "", "@/devices\0", "\0\0"]) {
    assert.equal(parseUevent(Buffer.from(text)), undefined);
  }
});
