import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ConnectionSchema } from "../gen/connection_pb.ts";
import { extendPath, type OwnSegments, returnToCaller } from "./path.ts";

type Segments = readonly (readonly [name: string, id: string])[];

interface Row {
  readonly says: string;
  readonly id: string;
  readonly index: number;
  readonly segments: Segments;
  readonly gives: { readonly id: string; readonly index: number; readonly back: number; readonly segments: Segments };
}

const own: OwnSegments = { name: "fwd", newId: () => "new", isOurs: ({ name, id }) => name === "fwd-0" && id === "f0" };

const rows: readonly Row[] = [
  {
    says: "begins an empty path with the id that is there",
    id: "x",
    index: 9,
    segments: [],
    gives: { id: "x", index: 0, back: 0, segments: [["fwd", "x"]] },
  },
  {
    says: "begins an empty path with a new id",
    id: "",
    index: 0,
    segments: [],
    gives: { id: "new", index: 0, back: 0, segments: [["fwd", "new"]] },
  },
  {
    says: "stays where it is named already",
    id: "other",
    index: 1,
    segments: [
      ["m", "m1"],
      ["fwd", "f1"],
    ],
    gives: {
      id: "f1",
      index: 1,
      back: 1,
      segments: [
        ["m", "m1"],
        ["fwd", "f1"],
      ],
    },
  },
  {
    says: "appends itself",
    id: "m1",
    index: 0,
    segments: [["m", "m1"]],
    gives: {
      id: "new",
      index: 1,
      back: 0,
      segments: [
        ["m", "m1"],
        ["fwd", "new"],
      ],
    },
  },
  {
    says: "finds its own segment again",
    id: "m1",
    index: 0,
    segments: [
      ["m", "m1"],
      ["fwd", "f1"],
      ["e", "e1"],
    ],
    gives: {
      id: "f1",
      index: 1,
      back: 0,
      segments: [
        ["m", "m1"],
        ["fwd", "f1"],
        ["e", "e1"],
      ],
    },
  },
  {
    says: "takes the place of another name and leaves what comes after it",
    id: "m1",
    index: 0,
    segments: [
      ["m", "m1"],
      ["old", "o1"],
      ["e", "e1"],
    ],
    gives: {
      id: "new",
      index: 1,
      back: 0,
      segments: [
        ["m", "m1"],
        ["fwd", "new"],
        ["e", "e1"],
      ],
    },
  },
  {
    says: "keeps the id of a connection of its own that was made under an earlier name",
    id: "m1",
    index: 0,
    segments: [
      ["m", "m1"],
      ["fwd-0", "f0"],
      ["e", "e1"],
    ],
    gives: {
      id: "f0",
      index: 1,
      back: 0,
      segments: [
        ["m", "m1"],
        ["fwd", "f0"],
        ["e", "e1"],
      ],
    },
  },
  {
    says: "keeps no other id that a path has under an earlier name",
    id: "m1",
    index: 0,
    segments: [
      ["m", "m1"],
      ["fwd-0", "f1"],
    ],
    gives: {
      id: "new",
      index: 1,
      back: 0,
      segments: [
        ["m", "m1"],
        ["fwd", "new"],
      ],
    },
  },
];

for (const { says, id, index, segments, gives } of rows) {
  test(`extendPath() ${says}`, () => {
    const connection = connectionWith(id, index, segments);
    const place = extendPath(connection, own);
    assert.equal(connection.id, gives.id);
    assert.deepEqual(place, {
      index: gives.index,
      callerIndex: gives.back,
      isNew: gives.id === "new" || segments.length === 0,
    });
    assert.equal(connection.path?.index, gives.index);
    assert.deepEqual(
      connection.path?.pathSegments.map((segment) => [segment.name, segment.id]),
      gives.segments,
    );
  });
}

const wrong = [
  {
    says: "an index behind the path",
    id: "m1",
    index: 1,
    segments: [["m", "m1"]] as Segments,
    text: "Path.Index+1==2 should be less or equal len(Path.PathSegments)==1",
  },
  {
    says: "the largest index",
    id: "m1",
    index: 4_294_967_295,
    segments: [["m", "m1"]] as Segments,
    text: "Path.Index+1==4294967296 should be less or equal len(Path.PathSegments)==1",
  },
  {
    says: "an id that is not the segment's",
    id: "x",
    index: 0,
    segments: [["m", "m1"]] as Segments,
    text: "Current PathSegment.Id==m1 should be equal Connection.Id==x",
  },
  {
    says: "no id where the segment has one",
    id: "",
    index: 0,
    segments: [["m", "m1"]] as Segments,
    text: "Current PathSegment.Id==m1 should be equal Connection.Id==",
  },
  {
    says: "an empty id in our own segment",
    id: "",
    index: 0,
    segments: [["fwd", ""]] as Segments,
    text: "request.EventFactory.Id must not be zero valued",
  },
];

for (const { says, id, index, segments, text } of wrong) {
  test(`extendPath() refuses ${says}`, () => {
    assert.throws(() => extendPath(connectionWith(id, index, segments), own), { message: text });
  });
}

test("returnToCaller() gives the caller its own index and id back", () => {
  const connection = connectionWith("m1", 0, [["m", "m1"]]);
  returnToCaller(connection, extendPath(connection, own));
  assert.deepEqual([connection.id, connection.path?.index], ["m1", 0]);
});

function connectionWith(id: string, index: number, segments: Segments) {
  const pathSegments = segments.map(([name, segmentId]) => ({ name, id: segmentId }));
  return create(ConnectionSchema, { id, path: { index, pathSegments } });
}
