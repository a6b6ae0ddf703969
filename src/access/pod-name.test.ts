import assert from "node:assert/strict";
import { test } from "node:test";
import { AccessError } from "./error.ts";
import { checkedUid, isMeant, parseHint, podPaths, podUidOf } from "./pod-name.ts";

const UID = "0f3b7c1e-9d5a-4c61-8a3e-2b1f6d7e8c90";
const UNDER = UID.replaceAll("-", "_");
const STATIC = "3b1f6d7e8c900f3b7c1e9d5a4c618a3e";

const accepted = [
  { says: "a burstable pod", text: `kubepods/burstable/pod${UID}/*`, uid: UID, containers: "*" },
  { says: "a guaranteed pod", text: `kubepods/pod${UID}/4f1c`, uid: UID, containers: "4f1c" },
  { says: "a static pod", text: `kubepods/burstable/pod${STATIC}/*`, uid: STATIC, containers: "*" },
  {
    says: "systemd's names",
    text: `kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod${UNDER}.slice/cri-containerd-4f1c.scope`,
    uid: UID,
    containers: "cri-containerd-4f1c.scope",
  },
  { says: "a kubelet beneath a root of its own", text: `kubelet/kubepods/pod${UID}/*`, uid: UID, containers: "*" },
  { says: "a nested cgroup of a container", text: `kubepods/pod${UID}/4f1c/init/*`, uid: UID, containers: "4f1c" },
];
for (const { says, text, uid, containers } of accepted) {
  test(`parseHint() takes ${says}`, () => {
    const hint = parseHint(text);
    assert.deepEqual([hint.podUid, hint.containers], [uid, containers]);
    assert.ok(text.startsWith(`${hint.podPath}/`));
  });
}

const refused = [
  { says: "an absolute path", text: `/kubepods/pod${UID}/*` },
  { says: "a climb", text: `kubepods/pod${UID}/../pod1/*` },
  { says: "a climb at the end", text: `kubepods/pod${UID}/..` },
  { says: "a dot", text: `kubepods/./pod${UID}/*` },
  { says: "an empty name", text: `kubepods//pod${UID}/*` },
  { says: "a slash at the end", text: `kubepods/pod${UID}/` },
  { says: "a wildcard for the pod", text: "kubepods/burstable/*/x" },
  { says: "a wildcard in the pod's name", text: `kubepods/burstable/pod${UID.slice(0, 8)}*/x` },
  { says: "all pods", text: "kubepods/burstable/*" },
  { says: "the pod without a container", text: `kubepods/burstable/pod${UID}` },
  { says: "two pods", text: `kubepods/pod${UID}/kubepods/pod${STATIC}/*` },
  { says: "a pod outside kubepods", text: `system.slice/pod${UID}/*` },
  { says: "a pod with kubepods beneath it", text: `pod${UID}/kubepods` },
  { says: "other patterns than *", text: `kubepods/pod${UID}/[ab]?` },
  { says: "a NUL", text: `kubepods/pod${UID}/a\0b` },
  { says: "a line break", text: `kubepods/pod${UID}/a\nb` },
  { says: "a long text", text: `kubepods/pod${UID}/${"a".repeat(5000)}` },
  { says: "nothing", text: "" },
];
for (const { says, text } of refused) {
  test(`parseHint() refuses ${says}`, () => {
    assert.throws(
      () => parseHint(text),
      (error) => error instanceof AccessError && error.fault.kind === "bad-name",
    );
  });
}

test("podPaths() knows both drivers and all classes", () => {
  assert.deepEqual(podPaths("kubepods", UID), [
    `kubepods/pod${UID}`,
    `kubepods/burstable/pod${UID}`,
    `kubepods/besteffort/pod${UID}`,
    `kubepods/guaranteed/pod${UID}`,
  ]);
  assert.ok(
    podPaths("kubelet.slice/kubelet-kubepods.slice", UID).includes(
      `kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod${UNDER}.slice`,
    ),
  );
});

test("podUidOf() reads the names that podPaths() writes, and no others", () => {
  for (const path of [...podPaths("kubepods", UID), ...podPaths("a.slice/a-kubepods.slice", UID)]) {
    assert.equal(podUidOf(path.split("/").at(-1) ?? ""), UID);
  }
  for (const name of ["kubepods", "burstable", "kubepods-burstable.slice", "cri-containerd-1.scope", "pod", "pod*"]) {
    assert.equal(podUidOf(name), undefined);
  }
});

test("checkedUid() refuses what could be more than a name", () => {
  for (const uid of ["", "..", "a/b", "-a", "a b", "*", "a".repeat(65)]) {
    assert.throws(() => checkedUid({ uid }), AccessError);
  }
  assert.equal(checkedUid({ uid: STATIC }), STATIC);
});

const meanings = [
  { pattern: "*", name: "4f1c", is: true },
  { pattern: "4f1c", name: "4f1c", is: true },
  { pattern: "4f1c", name: "4f1cd", is: false },
  { pattern: "cri-*.scope", name: "cri-containerd-1.scope", is: true },
  { pattern: "cri-*.scope", name: "crio-1.scope", is: false },
  { pattern: "a*a", name: "a", is: false },
  { pattern: "a*b*c", name: "a-b-b-c", is: true },
  { pattern: "a.c", name: "abc", is: false },
  { pattern: `${"a*".repeat(120)}b`, name: "a".repeat(255), is: false },
];
for (const { pattern, name, is } of meanings) {
  test(`isMeant() says ${is} for ${name.slice(0, 30)} and ${pattern.slice(0, 30)}`, () => {
    assert.equal(isMeant(name, pattern), is);
  });
}
