import assert from "node:assert/strict";
import { test } from "node:test";
import { Latest } from "../async/index.ts";
import type { PodResources } from "../kubelet/index.ts";
import { newsOf } from "./kubelet-offer.ts";

/** Kubelet has said that this pod, and no other, has the token. */
function saying(pod: string, tokenId: string) {
  const devices = new Map([[tokenId, { resource: "worker.domain/10G", pod, container: "app" }]]);
  return { kind: "known", holdings: { pods: new Set([pod]), devices } } as const;
}

test("newsOf() goes by what kubelet said last, also while it is away", () => {
  const state: PodResources["state"] = new Latest();
  const news = newsOf({ state });
  const known = () => ["t1", "t2"].map((tokenId) => news.podOf(tokenId));
  assert.deepEqual(known(), [undefined, undefined]);
  state.set(saying("default/a", "t1"));
  state.set({ kind: "unknown", problem: "kubelet does not answer" });
  assert.deepEqual(known(), ["default/a", undefined]);
  state.set(saying("default/b", "t2"));
  assert.deepEqual(known(), [undefined, "default/b"]);
});
