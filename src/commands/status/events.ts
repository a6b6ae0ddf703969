/** The data of each server-sent event in a stream of text (HTML Living Standard, 9.2.6); other fields are passed over. */
export async function* eventData(chunks: AsyncIterable<string>): AsyncIterable<string> {
  let rest = "";
  let data: string[] = [];
  for await (const chunk of chunks) {
    const lines = (rest + chunk).split(/\r\n|\n/);
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const [, value] = /^data: ?(.*)$/.exec(line) ?? [];
      if (value !== undefined) data.push(value);
      if (line !== "" || data.length === 0) continue;
      yield data.join("\n");
      data = [];
    }
  }
}
