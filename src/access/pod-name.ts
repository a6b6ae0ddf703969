// How kubelet names the cgroups of pods (pkg/kubelet/cm: cgroup_manager_linux.go, qos_container_manager_linux.go).
import { AccessError } from "./error.ts";
import type { PodRef } from "./grant.ts";

/** A Kubernetes UID is a UUID; that of a static pod 32 hex digits. Any other text of this form is taken as well. */
const UID = /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?$/;
/** With the systemd driver dashes would make nested slices, so they become underscores. */
const SYSTEMD_POD = /^(?:[^/]+-)?kubepods(?:-[a-z]+)?-pod([A-Za-z0-9_]{1,64})\.slice$/;
const CGROUPFS_POD = /^pod([A-Za-z0-9-]{1,64})$/;
const KUBEPODS = /^(?:[^/]+-)?kubepods(?:\.slice)?$/;
const ELEMENT = /^[A-Za-z0-9_.:@\\-]{1,255}$/;
const LAST_ELEMENT = /^[A-Za-z0-9_.:@\\*-]{1,255}$/;
/** PATH_MAX, include/uapi/linux/limits.h. */
const MAX_PATH = 4096;

const QOS_CLASSES = ["burstable", "besteffort", "guaranteed"] as const;

/** What a client's `cgroupDir` says, checked. */
interface CgroupHint {
  /** The pod's cgroup as the client sees it: `kubepods/burstable/pod<uid>`. */
  readonly podPath: string;
  readonly podUid: string;
  /** Name of the container's cgroup, with `*` for any text. */
  readonly containers: string;
}

/** The UID of the pod whose cgroup has this name; underscores of systemd's naming become dashes. Undefined for other cgroups. */
export function podUidOf(name: string): string | undefined {
  return CGROUPFS_POD.exec(name)?.[1] ?? SYSTEMD_POD.exec(name)?.[1]?.replaceAll("_", "-");
}

/** Whether a cgroup of this name holds the pods of a kubelet. */
export function isKubepods(name: string): boolean {
  return KUBEPODS.test(name);
}

/** Paths that the pod's cgroup can have beneath a root that `isKubepods`: by driver and quality of service. */
export function podPaths(kubepods: string, uid: string): readonly string[] {
  const name = kubepods.split("/").at(-1) ?? "";
  if (!name.endsWith(".slice")) return ["", ...QOS_CLASSES].map((qos) => joined(kubepods, qos, `pod${uid}`));
  const stem = name.slice(0, -".slice".length);
  const pod = `pod${uid.replaceAll("-", "_")}.slice`;
  const nested = QOS_CLASSES.map((qos) => joined(kubepods, `${stem}-${qos}.slice`, `${stem}-${qos}-${pod}`));
  return [joined(kubepods, `${stem}-${pod}`), ...nested];
}

/** Whether the text can be the UID of a pod, and so at most one name of a path. */
export function isPodUid(text: string): boolean {
  return UID.test(text);
}

/** @throws {AccessError} bad-name, for what could be more than one name of a path. */
export function checkedUid({ uid }: PodRef): string {
  if (!isPodUid(uid)) throw badName(uid, "want the UID of a pod: letters, digits and dashes");
  return uid;
}

/**
 * Reads what a client sent as its cgroup: beneath a kubepods tree, exactly one pod, a wildcard in the last name only.
 * @throws {AccessError} bad-name.
 */
export function parseHint(text: string): CgroupHint {
  if (text.length > MAX_PATH) throw badName(text, "it is too long");
  if (text.startsWith("/"))
    throw badName(text, "want a path beneath the root of the cgroups, without a slash in front");
  const names = text.split("/");
  for (const [i, name] of names.entries()) {
    if (name === ".." || name === "." || name === "") throw badName(text, "want plain names, no . and no ..");
    if (i < names.length - 1 && name.includes("*")) throw badName(text, "want * in the last name only");
    if (!(i === names.length - 1 ? LAST_ELEMENT : ELEMENT).test(name)) throw badName(text, "want plain names");
  }
  const pods = names.flatMap((name, i) => (podUidOf(name) === undefined ? [] : [i]));
  const [at] = pods;
  if (at === undefined || pods.length > 1) throw badName(text, "want the cgroup of exactly one pod");
  if (!names.slice(0, at).some(isKubepods)) throw badName(text, "want a cgroup beneath kubepods");
  const containers = names[at + 1];
  if (containers === undefined)
    throw badName(text, "want the cgroups of the pod's containers: a name or * after the pod's");
  return { podPath: names.slice(0, at + 1).join("/"), podUid: podUidOf(names[at] ?? "") ?? "", containers };
}

/** Whether the name is meant by a pattern in which `*` matches any text. */
export function isMeant(name: string, pattern: string): boolean {
  const [first = "", ...parts] = pattern.split("*");
  const last = parts.pop();
  if (last === undefined) return name === first;
  if (!name.startsWith(first)) return false;
  let at = first.length;
  // The earliest place for each part is the best one. A regular expression would try them all: the pattern is a peer's.
  for (const part of parts) {
    const found = name.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return name.length - last.length >= at && name.endsWith(last);
}

function joined(...names: readonly string[]): string {
  return names.filter((name) => name !== "").join("/");
}

function badName(text: string, problem: string): AccessError {
  return new AccessError({ kind: "bad-name", text, problem });
}
