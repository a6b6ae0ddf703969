import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Spire } from "../../sandbox/identity/spire.ts";
import { WorkloadSocket } from "../../sandbox/identity/workload-socket.ts";
import { createTestCa } from "../../sandbox/identity/x509.ts";
import { countedClock } from "../../test/counted-clock.ts";
import { until } from "../../test/scenes/until.ts";
import { type Clock, systemClock } from "../async/index.ts";
import { SpiffeWorkloadAPI } from "../gen/workload_pb.ts";
import { HandClock } from "../nsm/testing/fakes.ts";
import { serveRpc, streamHandler } from "../rpc/index.ts";
import { Health, silentLog } from "../telemetry/index.ts";
import { recordingLog } from "../telemetry/recording-log.ts";
import { IdentityError } from "./error.ts";
import { Identity } from "./identity.ts";
import { decodeToken, isSignedBy, splitToken } from "./jwt.ts";
import { parseSpiffeIdPattern } from "./spiffe-id-pattern.ts";
import type { SvidRotationOptions as IdentityOptions } from "./svid-rotation.ts";

const ME = "spiffe://sandbox.test/forwarder";

function agent(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), "identity-"));
  const spire = new Spire({ clock: systemClock });
  const socketPath = join(folder, "agent.sock");
  const socket = new WorkloadSocket({ spire, socketPath, spiffeIds: [ME], log: silentLog, clock: systemClock });
  t.after(async () => {
    await socket.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return { spire, socket };
}

function start(
  t: TestContext,
  endpointSocket: string,
  timeOf: Clock = systemClock,
  more: Partial<IdentityOptions> = {},
) {
  const clock = countedClock(timeOf);
  const log = recordingLog();
  const health = new Health(clock);
  const identity = new Identity({ endpointSocket, clock, log, health, ...more });
  t.after(async () => {
    await identity.close();
    assert.equal(clock.timerCount, 0, "timers that outlive the identity");
  });
  const codes = () => health.conditions().map((condition) => condition.code);
  return { identity, log, health, codes, clock };
}

function trusts(identity: Identity, chainDer: readonly Buffer[]): boolean {
  try {
    return identity.verifyPeer(chainDer).spiffeId !== "";
  } catch (error) {
    assert.ok(error instanceof IdentityError);
    return false;
  }
}

test("Identity waits for an agent that comes late and says what it waits for", async (t) => {
  const { spire, socket } = agent(t);
  const { identity, log, health, codes, clock } = start(t, socket.url);
  assert.throws(() => identity.credentials(), /Cannot prove who we are: no X.509 SVID yet/);
  await until("the agent that does not answer is logged", () => log.of("svid-awaited").length > 1);
  assert.deepEqual(log.of("svid-awaited")[0], { from: socket.url });
  assert.match(String(log.of("svid-awaited")[1]?.["problem"]), /no SPIRE agent answers there .* is it running/);
  assert.match(String(health.conditions()[0]?.sentence), /No X.509 SVID yet from unix:.*agent.sock/);
  await socket.start();
  const svid = await identity.ready();
  assert.equal(svid.id, ME);
  assert.equal(identity.credentials().keyPem, spire.svid(ME).keyPem);
  assert.deepEqual([codes(), log.of("svid-received").length], [[], 1]);
  assert.equal(clock.timerCount, 1, "its end is watched for, and there is no reminder any more");
});

test("Identity explains when no identity is issued", async (t) => {
  const { socket } = agent(t);
  socket.issue();
  await socket.start();
  const { identity, health } = start(t, socket.url);
  await until("the missing identity is a condition", () =>
    health.conditions().some(({ sentence }) => sentence.includes("issues no identity to this process")),
  );
  assert.throws(() => identity.credentials(), /make sure that a registration entry matches this pod/);
  socket.issue(ME);
  assert.equal((await identity.ready()).id, ME);
});

test("Identity follows rotations", async (t) => {
  const { spire, socket } = agent(t);
  await socket.start();
  const { identity, log } = start(t, socket.url);
  const first = await identity.ready();
  let reported = 0;
  identity.onRotate(() => reported++);
  const next = identity.current.next();
  spire.rotate();
  const second = await next;
  assert.notEqual(second.serial, first.serial);
  assert.equal(identity.credentials().certChainPem, second.certChainPem);
  assert.deepEqual([reported, log.of("svid-rotated").length], [1, 1]);
  await identity.close();
  assert.deepEqual(log.of("workload-api-failed"), [], "our own end is no fault of the agent");
});

test("Identity keeps the SVID while the agent is away, and takes the new one after", async (t) => {
  const { spire, socket } = agent(t);
  await socket.start();
  const { identity, log, codes } = start(t, socket.url);
  const first = await identity.ready();
  await socket.stop();
  await until("the lost agent is logged", () => log.of("workload-api-lost").length > 0);
  assert.equal(identity.credentials().certChainPem, first.certChainPem);
  assert.equal(trusts(identity, spire.svid(ME).chainDer), true);
  assert.deepEqual(codes(), ["workload-api-lost"]);
  spire.rotate();
  const next = identity.current.next();
  await socket.start();
  assert.notEqual((await next).serial, first.serial);
  assert.deepEqual([log.of("workload-api-back").length, codes()], [1, []]);
});

test("Identity says at once, and again with all that follows, why the agent gives it nothing any more", async (t) => {
  const { socket, spire } = agent(t);
  await socket.start();
  const clock = new HandClock(systemClock.now());
  const { identity, health, codes, log } = start(t, socket.url, clock);
  const { id, notAfterMs } = await identity.ready();
  const known = /issues no identity to this process .* registration entry matches this pod/;
  const sentences = () => health.conditions().map(({ sentence }) => known.test(sentence));
  socket.issue();
  await until("the deleted entry is a condition", () => codes().length > 0);
  assert.deepEqual([codes(), sentences(), health.ready.value], [["workload-api-lost"], [true], true]);
  assert.match(String(health.conditions()[0]?.sentence), new RegExp(`^The SVID of ${id}, good until 20`));
  await clock.pass(notAfterMs - clock.now() - 60_000);
  assert.deepEqual(
    [codes(), sentences()],
    [
      ["workload-api-lost", "svid-expiring"],
      [true, true],
    ],
  );
  await clock.pass(60_000);
  assert.deepEqual(
    [codes(), sentences()],
    [
      ["workload-api-lost", "svid-expired"],
      [true, true],
    ],
  );
  for (const event of ["svid-near-expiry", "svid-expired"]) assert.match(String(log.of(event)[0]?.["problem"]), known);
  assert.throws(
    () => identity.issueToken(undefined, 60_000),
    /our own SVID .* expired at .*, and there is no new one: .*issues no/,
  );
  await socket.stop();
  await clock.pass(10_000);
  await until("the other reason is shown", () => health.conditions().every(({ sentence }) => !known.test(sentence)));
  assert.match(String(health.conditions()[1]?.sentence), /no peer accepts us: no SPIRE agent answers there/);
  spire.rotate();
});

test("Identity keeps the SPIFFE ID that it has while it is issued, and warns when it becomes another", async (t) => {
  const { spire, socket } = agent(t);
  const [other, third] = ["spiffe://sandbox.test/other", "spiffe://sandbox.test/third"];
  await socket.start();
  const { identity, log } = start(t, socket.url);
  await identity.ready();
  const issue = async (...ids: string[]) => {
    const next = identity.current.next();
    spire.rotate();
    socket.issue(...ids);
    return (await next).id;
  };
  assert.equal(await issue(other, ME, third), ME);
  assert.deepEqual([log.of("svid-rotated").at(-1)?.["others"], log.of("spiffe-id-changed")], [[other, third], []]);
  assert.equal(await issue(other, third), other);
  assert.deepEqual(
    log.of("spiffe-id-changed").map(({ before, spiffeId }) => [before, spiffeId]),
    [[ME, other]],
  );
  assert.equal(await issue(ME, other), other, "it is not given back, either");
});

test("Identity takes the SPIFFE ID of before a restart where it is issued, else the first", async (t) => {
  const { socket } = agent(t);
  const other = "spiffe://sandbox.test/other";
  socket.issue(other, ME);
  await socket.start();
  assert.equal((await start(t, socket.url, systemClock, { last: ME }).identity.ready()).id, ME);
  assert.equal((await start(t, socket.url, systemClock, { last: `${ME}-before` }).identity.ready()).id, other);
  const spiffeIds = [parseSpiffeIdPattern(other)];
  assert.equal((await start(t, socket.url, systemClock, { last: ME, spiffeIds }).identity.ready()).id, other);
});

test("Identity takes the SPIFFE ID that NSM_SPIFFE_ID wants, and says what there is where it is not issued", async (t) => {
  const { socket } = agent(t);
  const [other, third] = ["spiffe://sandbox.test/other", "spiffe://sandbox.test/third"];
  socket.issue(other, third);
  await socket.start();
  const spiffeIds = [parseSpiffeIdPattern("spiffe://sandbox.test/forw*")];
  const { identity, health, codes } = start(t, socket.url, systemClock, { spiffeIds });
  const wanted = "NSM_SPIFFE_ID wants spiffe://sandbox.test/forw*, and the SPIRE agent issues ";
  const isSaid = (ids: string) => health.conditions().some(({ sentence }) => sentence.endsWith(wanted + ids));
  await until("it is said who is wanted and who there is", () => isSaid(`${other}, ${third}`));
  assert.deepEqual(codes(), ["svid-missing"]);
  socket.issue(other, ME);
  assert.equal((await identity.ready()).id, ME);
  socket.issue(other);
  await until("the last one is kept, and the reason is a condition", () => isSaid(other));
  assert.deepEqual([codes(), identity.current.value?.id], [["workload-api-lost"], ME]);
});

test("Identity reports other authorities only where they are others, and how many there are", async (t) => {
  const { spire, socket } = agent(t);
  await socket.start();
  const { identity, log } = start(t, socket.url);
  await identity.ready();
  let changes = 0;
  identity.onChange(() => changes++);
  const answers = () => log.of("svid-unchanged").length;
  socket.issue(ME, "spiffe://sandbox.test/other");
  await until("an answer that changes nothing is accepted", () => answers() === 1);
  assert.deepEqual([log.of("trust-bundles-changed"), changes], [[], 0]);
  spire.federate("other.test");
  await until("the other domain is trusted", () => answers() === 2);
  assert.deepEqual(
    [log.of("trust-bundles-changed"), changes],
    [[{ authorities: { "sandbox.test": 1, "other.test": 1 } }], 1],
  );
  const next = identity.current.next();
  spire.replaceAuthority({ keepOld: true });
  await next;
  assert.deepEqual(log.of("trust-bundles-changed").at(-1), { authorities: { "sandbox.test": 2, "other.test": 1 } });
  assert.equal(log.of("svid-rotated").length, 1);
  assert.equal(changes, 3);
});

test("Identity trusts federated domains from when they are known, without a rotation of ours", async (t) => {
  const { spire, socket } = agent(t);
  await socket.start();
  const { identity, log } = start(t, socket.url);
  await identity.ready();
  let reported = 0;
  identity.onRotate(() => reported++);
  const foreign = createTestCa("other.test").issue({ spiffeId: "spiffe://other.test/nsc" });
  assert.equal(trusts(identity, foreign.chainDer), false);
  spire.federate("other.test");
  await until("the other domain is trusted", () => log.of("trust-bundles-changed").length > 0);
  assert.equal(trusts(identity, spire.svid("spiffe://other.test/nsc").chainDer), true);
  assert.equal(trusts(identity, foreign.chainDer), false);
  assert.equal(reported, 0);
});

test("Identity.issueToken() is for the peer and no longer than its certificate", async (t) => {
  const { spire, socket } = agent(t);
  await socket.start();
  const { identity } = start(t, socket.url);
  await identity.ready();
  const peer = identity.verifyPeer(spire.svid("spiffe://sandbox.test/nsmgr").chainDer);
  const shortLived = { ...peer, notAfterMs: systemClock.now() + 30_000 };
  const { token, expiresMs } = identity.issueToken(shortLived, 600_000);
  assert.deepEqual(decodeToken(token), { sub: ME, aud: ["spiffe://sandbox.test/nsmgr"], expMs: expiresMs });
  assert.ok(expiresMs <= shortLived.notAfterMs);
});

test("Identity.issueToken() signs with the key that the connection has shown", async (t) => {
  const { spire, socket } = agent(t);
  await socket.start();
  const { identity } = start(t, socket.url);
  await identity.ready();
  const shown = identity.credentials();
  const renewed = new Promise<void>((resolve) => identity.onRotate(resolve));
  spire.rotate(ME);
  await renewed;
  const signer = (of: { readonly certChainPem: string }) => new X509Certificate(of.certChainPem).publicKey;
  const by = (token: string) =>
    [shown, identity.credentials()].map((one) => isSignedBy(splitToken(token), signer(one)));
  assert.deepEqual(by(identity.issueToken(undefined, 60_000, shown).token), [true, false]);
  assert.deepEqual(by(identity.issueToken(undefined, 60_000).token), [false, true]);
  assert.deepEqual(by(identity.issueToken(undefined, 60_000, identity.credentials()).token), [false, true]);
});

test("Identity warns of an SVID that is not renewed, and when it has ended", async (t) => {
  const { socket, spire } = agent(t);
  const clock = new HandClock(systemClock.now());
  const short = createTestCa("sandbox.test").issue({ spiffeId: ME, notAfterMs: clock.now() + 3_600_000 });
  const handlers = [
    streamHandler(SpiffeWorkloadAPI.method.fetchX509SVID, async function* (_request, call) {
      const bundle = spire.bundles().get("sandbox.test")?.[0] ?? Buffer.alloc(0);
      yield { svids: [{ spiffeId: ME, x509Svid: short.certChainDer, x509SvidKey: short.keyDer, bundle }] };
      await new Promise((resolve) => call.signal.addEventListener("abort", resolve));
    }),
  ];
  const server = await serveRpc({ url: socket.url, handlers, log: silentLog, clock: systemClock });
  t.after(() => server.stop(0));
  const { identity, log, codes } = start(t, socket.url, clock);
  await identity.ready();
  const reported = () => [log.of("svid-near-expiry").length > 0, log.of("svid-expired").length > 0, codes()];
  assert.deepEqual(reported(), [false, false, []]);
  await clock.pass(3_500_000);
  assert.deepEqual(reported().slice(0, 2), [true, false]);
  await clock.pass(100_000);
  assert.deepEqual(reported(), [true, true, ["svid-expired"]]);
});

for (const text of ["", "agent.sock", "/run/agent.sock", "http://localhost", "unix:relative.sock"]) {
  test(`Identity refuses "${text}" at once`, () => {
    const options = { clock: systemClock, log: silentLog, health: new Health(systemClock) };
    assert.throws(
      () => new Identity({ ...options, endpointSocket: text }),
      (error) => error instanceof IdentityError && error.fault.kind === "bad-socket",
    );
  });
}

test("Identity goes by the last answer that is good: another that is not is reported, and ends nothing", async (t) => {
  const { socket, spire } = agent(t);
  const ours = createTestCa("sandbox.test").issue({ spiffeId: ME });
  const foreign = createTestCa("other.test");
  const their = foreign.issue({ spiffeId: "spiffe://other.test/nsc" });
  const bundle = spire.bundles().get("sandbox.test")?.[0] ?? Buffer.alloc(0);
  const svids = [{ spiffeId: ME, x509Svid: ours.certChainDer, x509SvidKey: ours.keyDer, bundle }];
  const alone = { svids };
  const federatedBundles = { "spiffe://other.test": foreign.rootDer, "spiffe://broken.test": Buffer.of(1) };
  const federated = { svids, federatedBundles };
  const answers: (typeof federated | { readonly svids: typeof svids })[] = [federated];
  let wake = () => {};
  const handlers = [
    streamHandler(SpiffeWorkloadAPI.method.fetchX509SVID, async function* () {
      for (;;) {
        const answer = answers.shift();
        if (answer) yield answer;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    }),
  ];
  const server = await serveRpc({ url: socket.url, handlers, log: silentLog, clock: systemClock });
  t.after(() => server.stop(0));
  const { identity, log } = start(t, socket.url);
  await identity.ready();
  assert.equal(trusts(identity, their.chainDer), true);
  assert.deepEqual(
    log.of("trust-bundle-unreadable").map(({ trustDomain }) => trustDomain),
    ["spiffe://broken.test"],
  );
  const reported = (event: string) => log.of(event).length;
  const useless = { svids: [] };
  for (const [answer, lost, back] of [
    [useless, 1, 0],
    [useless, 1, 0],
    [federated, 1, 1],
    [useless, 2, 1],
    [alone, 2, 2],
  ] as const) {
    const judged = () => reported("workload-api-failed") + reported("svid-unchanged");
    const before = judged();
    answers.push(answer);
    wake();
    await until("the answer has been judged", () => judged() > before);
    assert.deepEqual([reported("workload-api-lost"), reported("workload-api-back")], [lost, back]);
  }
  assert.equal(trusts(identity, their.chainDer), false, "a domain that is federated no more");
});

test("Identity says again and again that it waits, ever more rarely, and not after it was closed", async (t) => {
  const clock = new HandClock(systemClock.now());
  const { socket } = agent(t);
  const { identity, log } = start(t, socket.url, clock);
  const reported = () => log.of("svid-awaited").length - 1;
  await clock.pass(15_100);
  assert.equal(reported(), 4, "after 1, 3, 7 and 15 s");
  await identity.close();
  await clock.pass(600_000);
  assert.equal(reported(), 4);
});
