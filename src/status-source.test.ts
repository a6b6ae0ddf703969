import assert from "node:assert/strict";
import { test } from "node:test";
import { Inventory, parsePciAddress } from "./sriov/index.ts";
import { nodeStatus } from "./status-source.ts";

const pf = parsePciAddress("01:00.0");
const [first, second, third] = [0, 1, 2].map((n) => parsePciAddress(`01:10.${n}`));

test("nodeStatus() shows each function as the inventory has it at this moment, and no token", () => {
  assert.ok(first && second && third);
  const inventory = new Inventory("6ba7b810-9dad-11d1-80b4-00c04fd430c8");
  const status = nodeStatus("fwd", inventory);
  const table = () => status.tables()[0] ?? assert.fail("there is no table");
  assert.deepEqual(table().rows, []);

  const common = { pf, iommuGroup: undefined, numaNode: 0, kernelDriver: "igbvf", driver: "igbvf", resources: ["d/x"] };
  inventory.sync(
    pf,
    [first, second, third].map((address, index) => ({ ...common, address, index })),
  );
  const tokenId = inventory.devicesOf("d/x").find(({ address }) => address === first)?.id ?? "";
  inventory.take({ connectionId: "c1", tokenId, use: "kernel" });
  inventory.setState("c1", "ready");
  inventory.setProblem(second, "its link is down");
  inventory.quarantine(third, "the kernel does not finish a write");

  assert.deepEqual(
    table().rows.map(({ cells, state }) => [cells[1], cells.slice(6).join(" | "), state]),
    [
      ["0", "ready | c1 | ", "good"],
      ["1", "idle |  | its link is down", "bad"],
      ["2", "quarantined |  | the kernel does not finish a write", "bad"],
    ],
  );
  assert.equal(status.facts().find(({ name }) => name === "Virtual functions")?.value, "3: 1 idle, 1 with clients");
  assert.ok(!JSON.stringify([status.facts(), status.tables()]).includes(tokenId));
});
