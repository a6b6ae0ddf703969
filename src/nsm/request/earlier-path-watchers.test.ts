// What watchers hear of a client that comes back by another path.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { type Connection, type ConnectionEvent, ConnectionEventType } from "../../gen/connection_pb.ts";
import { behalfOf, kernelRequest, refreshOf, settled } from "../testing/fakes.ts";
import { endStories, Story } from "../testing/story.ts";

afterEach(endStories);

const VICTIM = "spiffe://test/victim";
let story: Story;
let first: Connection;

beforeEach(async () => {
  story = new Story();
  first = await story.request(behalfOf(VICTIM, kernelRequest()));
});

const kinds = new Map<unknown, string>(
  Object.entries(ConnectionEventType).map(([name, type]) => [type, name] as const),
);
const said = (heard: readonly ConnectionEvent[]) =>
  heard.map(({ type, connections }) => `${kinds.get(type)} ${Object.keys(connections)}`);

async function moveAndEnd(heard: readonly ConnectionEvent[]) {
  await settled();
  const second = await story.request(behalfOf(VICTIM, kernelRequest({}, "m2")));
  await settled();
  const meanwhile = said(heard);
  await story.close(behalfOf(VICTIM, refreshOf(second)).connection ?? assert.fail());
  await settled();
  return { meanwhile, atEnd: said(heard).slice(meanwhile.length) };
}

test("one that watches ids hears the new one, and then the end of the former", async () => {
  const { meanwhile, atEnd } = await moveAndEnd(story.listen());
  assert.deepEqual(meanwhile, ["INITIAL_STATE_TRANSFER f1", "UPDATE f2", "DELETE f1"]);
  assert.deepEqual(atEnd, ["DELETE f2"]);
});

test("one that watches the former path hears no end of what its client has, until that ends", async () => {
  const segment = first.path?.pathSegments[1] ?? assert.fail();
  const { meanwhile, atEnd } = await moveAndEnd(story.listen(story.manager, [segment]));
  assert.deepEqual([meanwhile, atEnd], [["INITIAL_STATE_TRANSFER f1"], ["DELETE f1"]]);
});

test("one that watches the client's own segment hears no end of what its client has, until that ends", async () => {
  const segment = first.path?.pathSegments[0] ?? assert.fail();
  const { meanwhile, atEnd } = await moveAndEnd(story.listen(story.manager, [segment]));
  assert.deepEqual([meanwhile, atEnd], [["INITIAL_STATE_TRANSFER f1", "UPDATE f2"], ["DELETE f2"]]);
});
