import { parseArgs } from "node:util";

/** What the command line asks for. */
export interface DemoOptions {
  /** End after the scenario instead of staying up. */
  readonly isOnce: boolean;
  readonly isHelpWanted: boolean;
  /** Print the forwarder's own log to standard error. */
  readonly isLogShown: boolean;
}

export const usage = `npm start [-- --once] [-- --log]

Runs the SR-IOV forwarder on a pretend node: a NIC with two physical functions and eight virtual functions each, a kubelet,
a SPIRE agent, an NSMgr with its registry, two pods and an endpoint, each speaking its real protocol on real sockets. Shows
one connection from the first Request to its Close, and checks every step against the node itself.

  --once   end after the scenario: exit status 0 only if every step held, 1 otherwise
  --log    print the forwarder's own log to standard error
  --help   this text

Without --once it stays up with the status page until Ctrl-C. Real network links need root or the right to make a user
namespace (unshare -rn); without them the scenario runs on pretended links and says so.
`;

/** Undefined when an argument is unknown. */
export function readOptions(args: readonly string[]): DemoOptions | undefined {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: { once: { type: "boolean" }, log: { type: "boolean" }, help: { type: "boolean", short: "h" } },
    });
    return { isOnce: values.once === true, isLogShown: values.log === true, isHelpWanted: values.help === true };
  } catch {
    return undefined;
  }
}
