import type { MessageInitShape } from "@bufbuild/protobuf";
import type { KeyValueSchema } from "../gen/otlp_common_pb.ts";

/** Texts as OTLP's attributes. */
export function attributesOf(facts: Readonly<Record<string, string>>): MessageInitShape<typeof KeyValueSchema>[] {
  return Object.entries(facts).map(([key, value]) => ({ key, value: { value: { case: "stringValue", value } } }));
}
