import assert from "node:assert/strict";
import { test } from "node:test";
import { parseUnixListeners } from "./unix-listeners.ts";

// unshare -n python3 -c 'import socket; a=socket.socket(socket.AF_UNIX); a.bind("/tmp/u x"); a.listen()
// b=socket.socket(socket.AF_UNIX); b.connect("/tmp/u x"); c=socket.socket(socket.AF_UNIX); c.bind("\0abstract"); c.listen()
// print(open("/proc/net/unix").read())'
const captured = `Num       RefCount Protocol Flags    Type St Inode Path
0000000066ced1a9: 00000002 00000000 00010000 0001 01 1308960 /tmp/u x
00000000f4012ece: 00000003 00000000 00000000 0001 02     0 /tmp/u x
000000005266c727: 00000003 00000000 00000000 0001 03 1308961
00000000189b930f: 00000002 00000000 00010000 0001 01 1308962 @abstract
`;

test("parseUnixListeners() takes the sockets that have a listener, by their whole path", () => {
  assert.deepEqual(parseUnixListeners(captured), ["/tmp/u x", "@abstract"]);
  assert.deepEqual(parseUnixListeners(""), []);
});
