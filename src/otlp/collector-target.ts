// What gRPC and OpenTelemetry call an endpoint, as an address that can be dialled: https://github.com/grpc/grpc/blob/master/doc/naming.md
import { resolve } from "node:path";

/** Where a collector is. */
export interface CollectorTarget {
  /** `tcp://host:port` or `unix:///path`. */
  readonly target: string;
  /** What its certificate must name. */
  readonly name: string;
  /** Where its spelling says so, as `https://` does. */
  readonly isTls: boolean | undefined;
  /** What is not done as written. */
  readonly warning?: string;
}

/** gRPC's own, for names without a port. */
const GRPC_PORT = 443;
/** OTLP over gRPC. */
const OTLP_PORT = 4317;

/** @throws {SyntaxError} with what is wrong with it, and what to write instead. */
export function parseCollectorTarget(text: string): CollectorTarget {
  const [, scheme = "", rest = text] = /^([a-zA-Z][a-zA-Z0-9+.-]*):(?!\d{1,5}$)(.*)$/.exec(text) ?? [];
  switch (scheme.toLowerCase()) {
    case "":
      return tcp(text, GRPC_PORT);
    case "http":
    case "https": {
      const authority = /^\/\/([^/?#]*)/.exec(rest)?.[1] ?? "";
      return { ...tcp(authority, OTLP_PORT), isTls: scheme.toLowerCase() === "https" };
    }
    case "dns":
      return dns(rest);
    case "passthrough":
      return tcp(/^(?:\/\/[^/]*\/)?(.*)$/.exec(rest)?.[1] ?? "", GRPC_PORT);
    case "ipv4":
    case "ipv6":
      return tcp(rest.split(",")[0] ?? "", GRPC_PORT);
    case "unix":
      return unix(rest);
    case "unix-abstract":
      throw new SyntaxError(
        "a socket without a file is of one network namespace, and this process is in the host's; have the collector listen on a file " +
          "(unix:///path) in a folder that both pods mount",
      );
    default:
      throw new SyntaxError(
        `${scheme}: is no scheme that is known here; want host:port, dns:///host:port, unix:///path or https://host:port`,
      );
  }
}

function dns(rest: string): CollectorTarget {
  const [, authority = "", name = rest] = /^\/\/([^/]*)\/(.*)$/.exec(rest) ?? [];
  const target = tcp(name, GRPC_PORT);
  if (authority === "") return target;
  return { ...target, warning: `the name server ${authority} is not asked for ${target.name}: this machine's is` };
}

function tcp(text: string, standardPort: number): CollectorTarget {
  const [, bracketed, plain = "", port = String(standardPort)] =
    /^(?:\[([0-9a-fA-F:.%]+)\]|([^\s:/[\]@]*))(?::(\d{1,5}))?$/.exec(text) ?? [];
  const name = bracketed ?? (plain === "" && text.startsWith(":") ? "localhost" : plain);
  if (name === "" || Number(port) < 1 || Number(port) > 65_535) {
    throw new SyntaxError(`${JSON.stringify(text)} is no host:port`);
  }
  return { target: `tcp://${bracketed === undefined ? name : `[${name}]`}:${port}`, name, isTls: undefined };
}

function unix(rest: string): CollectorTarget {
  const path = rest.startsWith("//") ? rest.slice(2) : rest;
  const isSound = rest.startsWith("//") ? path.startsWith("/") : path !== "";
  if (!isSound) throw new SyntaxError(`unix:${rest} names no file; want unix:///path of its socket`);
  return { target: `unix://${resolve(path)}`, name: "localhost", isTls: undefined };
}
