import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { ListAndWatchResponseSchema } from "../gen/deviceplugin_pb.ts";
import { DeviceList } from "./device-list.ts";

const device = (id: string, healthy = true, numaNode?: number) => ({ id, healthy, numaNode });

function read(bytes: Uint8Array): readonly (readonly [string, string, number | undefined])[] {
  return fromBinary(ListAndWatchResponseSchema, bytes).devices.map(({ ID, health, topology }) => {
    const [node] = topology?.nodes ?? [];
    return [ID, health, node && Number(node.ID)];
  });
}

test("DeviceList.encode() makes one message of all devices", () => {
  const list = new DeviceList();
  assert.deepEqual(read(list.encode([device("a"), device("b", false, 1), device("c", true, 0)])), [
    ["a", "Healthy", undefined],
    ["b", "Unhealthy", 1],
    ["c", "Healthy", 0],
  ]);
  assert.deepEqual(read(list.encode([])), []);
});

test("DeviceList.encode() gives the same array until something changes", () => {
  const list = new DeviceList();
  const first = list.encode([device("a"), device("b")]);
  assert.equal(list.encode([device("a"), device("b")]), first);
  const changes = [
    [device("a"), device("b", false)],
    [device("a", true, 1), device("b", false)],
    [device("b", false), device("a", true, 1)],
    [device("a", true, 1)],
    [device("a", true, 1), device("c")],
  ];
  for (const devices of changes) {
    const now = list.encode(devices);
    assert.deepEqual(
      read(now),
      devices.map(({ id, healthy, numaNode }) => [id, healthy ? "Healthy" : "Unhealthy", numaNode]),
    );
    assert.equal(list.encode(devices.map((one) => ({ ...one }))), now);
  }
});
