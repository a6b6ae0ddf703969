import type { NodeView } from "../../admin/index.ts";
import { eventData } from "./events.ts";

/** The forwarder's picture could not be had; the message says why and what to do. */
export class NoViewError extends Error {
  override readonly name = "NoViewError";
}

/** The node as it is now. @throws {NoViewError} */
export async function fetchView(base: string, signal: AbortSignal): Promise<NodeView> {
  const answer = await query(`${base}/status.json`, signal);
  return toView(await read(answer.text(), base), base);
}

/** The node now and at each change, until the forwarder ends the stream. @throws {NoViewError} */
export async function* watchViews(base: string, signal: AbortSignal): AsyncIterable<NodeView> {
  const answer = await query(`${base}/status.events`, signal);
  if (!answer.body) return;
  const stream = answer.body.pipeThrough(new TextDecoderStream());
  for await (const data of eventData(checked(stream, base))) yield toView(data, base);
}

async function* checked(stream: AsyncIterable<string>, base: string): AsyncIterable<string> {
  try {
    yield* stream;
  } catch (error) {
    throw broken(base, error);
  }
}

async function query(url: string, signal: AbortSignal): Promise<Response> {
  const base = new URL(url).origin;
  const answer = await fetchFirst(addressed(url), base, signal);
  if (answer.ok) return answer;
  const said = (await read(answer.text(), base)).split("\n")[0] ?? "";
  throw new NoViewError(`Cannot read the status at ${url}: it answers ${answer.status} ${said}`.trim());
}

/**
 * What "localhost" may mean, without querying a resolver: with AI_ADDRCONFIG, which fetch() sets, getaddrinfo(3) knows no
 * address of it on a host that has none but those of loopback, and says EAI_AGAIN.
 */
function addressed(url: string): readonly string[] {
  if (new URL(url).hostname !== "localhost") return [url];
  return ["127.0.0.1", "[::1]"].map((host) => Object.assign(new URL(url), { hostname: host }).href);
}

async function fetchFirst(urls: readonly string[], base: string, signal: AbortSignal): Promise<Response> {
  let failure: unknown;
  for (const url of urls) {
    try {
      return await fetch(url, { signal, headers: { connection: "close" } }); // a kept one would hold up the end
    } catch (error) {
      failure ??= error;
      if (codeOf(error) !== "ECONNREFUSED") break;
    }
  }
  throw unreachable(base, failure);
}

function codeOf(error: unknown): string {
  const { cause = error } = error as Error;
  return (cause as NodeJS.ErrnoException).code ?? (cause as Error).message;
}

async function read(text: Promise<string>, base: string): Promise<string> {
  try {
    return await text;
  } catch (error) {
    throw broken(base, error);
  }
}

function unreachable(base: string, error: unknown): NoViewError {
  const code = codeOf(error);
  const why = code === "ECONNREFUSED" ? "no process listens there" : code;
  const hint =
    "is it running here (else: kubectl exec POD -- forwarder status), with the same NSM_ADMIN_LISTEN_ON? See also: forwarder check";
  return new NoViewError(`Cannot reach a forwarder at ${base}: ${why}; ${hint}`, { cause: error });
}

function broken(base: string, error: unknown): NoViewError {
  return new NoViewError(`Lost the forwarder at ${base}: ${(error as Error).message}`, { cause: error });
}

/** Another program may listen there, or another version: what is drawn must be there. */
function toView(text: string, base: string): NodeView {
  const value = parsed(text);
  const lists = ["pfs", "connections", "resources", "conditions", "troubles"];
  if (typeof value["name"] === "string" && lists.every((name) => Array.isArray(value[name]))) {
    return value as unknown as NodeView;
  }
  throw new NoViewError(`Cannot read the status at ${base}: what answers there is no forwarder of this version`);
}

function parsed(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Readonly<Record<string, unknown>>) : {};
  } catch {
    return {};
  }
}
