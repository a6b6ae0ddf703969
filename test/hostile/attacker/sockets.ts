// Attacks below HTTP/2: descriptors, half-open connections, slow and dear handshakes.
import { spawn } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { connect, createConnection, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { makeOddCertificate, type OddCertificate } from "../../../sandbox/identity/odd-certificate.ts";
import { aborted, firstOf, lastMoment, secureSocket, sessionOver, tally } from "./session.ts";
import type { Attacker, Target } from "./target.ts";

/** What Node cannot send: descriptors. Runs until the signal, or until it has done all. */
async function python(program: string, args: readonly string[], signal: AbortSignal): Promise<string> {
  const head = "import array, os, resource, socket, subprocess, sys, time\n";
  const child = spawn("python3", ["-c", head + program, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  let said = "";
  child.stdout.on("data", (text: Buffer) => {
    said = String(text).trim().split("\n").at(-1) ?? "";
  });
  const ended = once(child, "close");
  await Promise.race([ended, aborted(signal)]);
  child.kill("SIGKILL");
  await ended;
  return said;
}

const DEAD = `
def dead():
    child = subprocess.Popen(["sleep", "60"])
    fd = os.open("/proc/%d/fd" % child.pid, os.O_RDONLY | os.O_DIRECTORY)
    child.kill(); child.wait()
    return fd
def pass_on(s, fds, data=b"x"):
    s.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
`;

/** A descriptor at which not even fstat(2) can look. */
export const deadDescriptors: Attacker = (target, signal) =>
  python(
    `${DEAD}
count = 0
fd = dead()
while True:
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
    try: pass_on(s, [fd]); count += 1
    except OSError: pass
    print(count, "passed", flush=True)
    time.sleep(0.01)
`,
    [target.forwarder.socket],
    signal,
  );

/** 253 descriptors in each message, over connections that say nothing else. */
export const descriptorFlood: Attacker = (target, signal) =>
  python(
    `${DEAD}
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
files = [os.memfd_create("f%d" % i) for i in range(253)]
held = []; sent = 0
while True:
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(1); held.append(s)
    try:
        for i in range(8): pass_on(s, files, b"\\x16"); sent += 253
    except OSError: pass
    if len(held) > 200: held.pop(0).close()
    print(sent, "passed", flush=True)
    time.sleep(0.005)
`,
    [target.forwarder.socket],
    signal,
  );

const FLOOD = `
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
held = []; began = time.monotonic(); n = 0
while True:
    s = socket.socket(socket.AF_UNIX); s.settimeout(2)
    try:
        s.connect(sys.argv[1]); s.send(bytes.fromhex(sys.argv[2]))
    except OSError: pass
    held.append(s); n += 1
    if len(held) > 4000: held.pop(0).close()
    if n % 50 == 0: print(n, "connections", flush=True)
    time.sleep(max(0, began + n / 500 - time.monotonic()))
`;

/** 500 connections a second that say so much and no more. */
const flood =
  (hex: string): Attacker =>
  (target, signal) =>
    python(FLOOD, [target.forwarder.socket, hex], signal);

export const silentFlood = flood("");
export const firstByteFlood = flood("16");

/** Whole ClientHellos, each of which has the server prepare TLS and sign. */
export const helloFlood: Attacker = async (target, signal) => flood(await clientHello())(target, signal);

/** What node:tls says first. */
async function clientHello(): Promise<string> {
  const { createServer } = await import("node:net");
  const { connect: connectTls } = await import("node:tls");
  const heard = Promise.withResolvers<Buffer>();
  const server = createServer((socket) => socket.on("error", () => {}).once("data", heard.resolve));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address() as { port: number };
  const tls = connectTls({ port: address.port, host: "127.0.0.1", ALPNProtocols: ["h2"] }).on("error", () => {});
  const hello = await heard.promise;
  tls.destroy();
  server.close();
  return hello.toString("hex");
}

/** A ClientHello that comes byte by byte, on as many connections as there are handshakes. */
export const slowHandshakes: Attacker = async (target, signal) => {
  const hello = Buffer.from(await clientHello(), "hex");
  const sockets = new Set<Socket>();
  let ended = 0;
  for (let at = 0; !signal.aborted; at += 1) {
    while (sockets.size < 256) {
      const socket = createConnection(target.forwarder.socket).on("error", () => {});
      sockets.add(socket);
      socket.once("close", () => {
        sockets.delete(socket);
        ended += 1;
      });
    }
    const byte = hello.subarray(at % hello.length, (at % hello.length) + 1);
    for (const socket of sockets) socket.write(byte);
    await sleep(50, undefined, { signal }).catch(() => {});
  }
  return `${ended} were ended`;
};

/** Intermediates of one name that all vouch for each other, with the dearest keys that are taken; no identity. */
export const dearChains: Attacker = async (target, signal) => {
  const keyOf = () => generateKeyPairSync("ec", { namedCurve: "P-521" });
  const authorities: OddCertificate[] = [];
  for (let at = 0; at < 9; at += 1) authorities.push(makeOddCertificate({ subject: "CN=dear", key: keyOf() }));
  const leafKey = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const leaf = makeOddCertificate({
    subject: "CN=leaf",
    issuer: firstOf(authorities),
    key: leafKey,
    isCa: undefined,
    uris: [firstOf(target.identities).spiffeId],
  });
  const pem = ({ der }: OddCertificate) =>
    `-----BEGIN CERTIFICATE-----\n${der.toString("base64").replace(/.{64}/g, "$&\n")}\n-----END CERTIFICATE-----\n`;
  const identity = {
    certPem: [leaf, ...authorities].map(pem).join(""),
    keyPem: leafKey.privateKey.export({ format: "pem", type: "pkcs8" }).toString(),
  };
  let count = 0;
  const work = async () => {
    while (!signal.aborted) {
      const secure = await secureSocket(target.forwarder.socket, identity);
      count += 1;
      if (!secure) continue;
      await Promise.race([once(secure.resume(), "close"), aborted(signal)]);
      secure.destroy();
    }
  };
  await Promise.race([Promise.all(Array.from({ length: 8 }, work)), aborted(signal)]);
  return `${count} handshakes`;
};

/** As many connections of identities as there is room for, on which nothing is said. */
export const idleConnections: Attacker = async (target, signal) => {
  const held = new Set<unknown>();
  const states = await fill(target, async (at) => {
    const identity = target.identities[at % target.identities.length] ?? firstOf(target.identities);
    const secure = await secureSocket(target.forwarder.socket, identity);
    const session = secure && (await sessionOver(secure));
    if (session) held.add(session);
    return session ? "open" : "refused";
  });
  await aborted(signal);
  await sleep(1_500); // for the innocents to meet all of them
  return tally(states);
};

/** Opens 1,100, eight at a time. */
async function fill(target: Target, open: (at: number) => Promise<string>): Promise<string[]> {
  const signal = lastMoment(target);
  const states: string[] = [];
  let next = 0;
  const work = async () => {
    while (next < 1_100 && !signal.aborted) {
      next += 1;
      states.push(await open(next));
    }
  };
  await Promise.race([Promise.all(Array.from({ length: 8 }, work)), aborted(signal)]);
  return states;
}

/** 256 connections of one identity, each with 256 descriptors that no call asks for. */
export const heldDescriptors: Attacker = (target) =>
  python(
    `${DEAD}
import json, ssl, tempfile
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
files = [os.memfd_create("f%d" % i) for i in range(128)]
who = json.loads(sys.argv[2])
folder = tempfile.mkdtemp()
open(folder + "/c", "w").write(who["certPem"]); open(folder + "/k", "w").write(who["keyPem"])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
context.load_cert_chain(folder + "/c", folder + "/k"); context.set_alpn_protocols(["h2"])
subprocess.call(["rm", "-r", folder])
held = []; sent = 0
frame = b"\\0\\0\\x08\\x06\\0\\0\\0\\0\\0" + b"p" * 8
while len(held) < 256:
    raw = socket.socket(socket.AF_UNIX); raw.settimeout(10)
    try:
        raw.connect(sys.argv[1])
        inn, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(inn, out)
        while True:
            try:
                tls.do_handshake(); break
            except ssl.SSLWantReadError:
                raw.send(out.read()); inn.write(raw.recv(65536))
        tls.write(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + b"\\0\\0\\0\\x04\\0\\0\\0\\0\\0")
        raw.send(out.read())
        inn.write(raw.recv(65536))
        time.sleep(0.002)
        for i in range(2):
            tls.write(frame); pass_on(raw, files, out.read()); sent += 128
    except OSError as e: pass
    held.append(raw)
    print(sent, "passed over", len(held), flush=True)
time.sleep(1)
`,
    [target.forwarder.socket, JSON.stringify(firstOf(target.identities))],
    lastMoment(target),
  );

/** Connections to the page's port that begin HTTP/2 and say no more; each is made again when it is ended. */
export const idleAdmin: Attacker = async ({ admin }, signal) => {
  const preface = Buffer.concat([
    Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Buffer.from("000000040000000000", "hex"),
  ]);
  let made = 0;
  const open = new Set<Socket>();
  while (!signal.aborted) {
    while (open.size < 100) {
      const socket = connect(admin.port, admin.host)
        .on("error", () => {})
        .resume();
      socket.write(preface);
      open.add(socket);
      made += 1;
      socket.once("close", () => open.delete(socket));
    }
    await sleep(20, undefined, { signal }).catch(() => {});
  }
  return `${made} made`;
};
