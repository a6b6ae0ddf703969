// Texts of peers that become names, addresses and numbers.
import { isIP } from "node:net";
import { AccessError } from "../../../src/access/error.ts";
import { isMeant, isPodUid, parseHint, podPaths, podUidOf } from "../../../src/access/pod-name.ts";
import { durationFrom, labels, list, listenOrOff, socketUrl, spiffeIds } from "../../../src/config-values.ts";
import { ipFromBytes, ipToBytes } from "../../../src/kernel/netlink/ip.ts";
import { macOf, macToBytes } from "../../../src/kernel/netlink/link.ts";
import { resourceNameProblem, socketName } from "../../../src/kubelet/resource-name.ts";
import { NetdevError } from "../../../src/netdev/error.ts";
import {
  parseHostPrefix,
  parseInterfaceName,
  parseMac,
  parseNextHop,
  parsePorts,
  parseProtocol,
  parseRoutePrefix,
} from "../../../src/netdev/parse.ts";
import { broadcastOf, contains, networkOf, parsePrefix, prefixText } from "../../../src/netdev/prefix.ts";
import { settingText, settingValue } from "../../../src/netdev/setting-text.ts";
import { renderLabel } from "../../../src/nsm/endpoint/match-endpoints.ts";
import { NsmError } from "../../../src/nsm/fault.ts";
import { formatInodeUrl, parseInodeUrl } from "../../../src/nsm/mechanism/inode-url.ts";
import { parseCollectorTarget } from "../../../src/otlp/collector-target.ts";
import { parsePciAddress } from "../../../src/pci/address.ts";
import { hold, type Target, texts } from "../target.ts";

const addresses = [
  "10.0.0.1/24",
  "2001:db8::1/64",
  "::ffff:1.2.3.4",
  "fe80::1%eth0",
  "1:2:3:4:5:6:7:8",
  "::",
  "0.0.0.0/0",
];
const addressWords = ["::", ":", "0", "255", "256", "ffff", "/0", "/32", "/128", "/129", "%", "1.2.3.4", "-1", "+"];

const checked = { bytes: 0 };

/** What of some parsers takes the text; each refuses by its own error. */
function takenBy(text: string, parsers: Readonly<Record<string, (text: string) => unknown>>): string {
  const taken: string[] = [];
  for (const [name, parse] of Object.entries(parsers)) {
    try {
      parse(text);
      taken.push(name);
    } catch (error) {
      if (!(error instanceof NetdevError) && !(error instanceof SyntaxError)) throw error;
    }
  }
  checked.bytes += text.length;
  return taken.join();
}

export const textTargets: readonly Target[] = [
  {
    name: "address",
    says: "IP addresses and prefixes",
    seeds: texts(...addresses),
    words: addressWords,
    mostBytes: 128,
    refusals: [],
    run(input) {
      const text = input.toString("latin1");
      const bytes = ipToBytes(text);
      const isOne = isIP(text) !== 0 && !text.includes("%");
      hold((bytes !== undefined) === isOne, () => `${JSON.stringify(text)}: Node says ${isIP(text)}`);
      if (bytes) {
        const canonical = ipFromBytes(bytes);
        hold(Buffer.from(ipToBytes(canonical) ?? []).equals(bytes), () => `${canonical} is another address`);
      }
      const prefix = parsePrefix(text);
      if (!prefix) return String(isOne);
      const again = parsePrefix(prefixText(prefix));
      hold(JSON.stringify(again) === JSON.stringify(prefix), () => `${prefixText(prefix)} is another prefix`);
      hold(contains(prefix, prefix.address) && contains(prefix, networkOf(prefix).address), () => "is not in itself");
      broadcastOf(prefix);
      return `${prefix.family} ${prefix.prefixLength} ${isOne}`;
    },
  },
  {
    name: "context-texts",
    says: "names, addresses and ports of a connection's context",
    seeds: texts(...addresses, "02:00:00:00:00:01", "nsm-1", "80-90", "tcp", "50"),
    words: [...addressWords, "..", "all", "\u2028", "\u{10ffff}", "-", "65535"],
    refusals: [],
    run(input) {
      const text = input.toString("utf8");
      return takenBy(text, {
        name(given) {
          const name = parseInterfaceName(given);
          hold(!/[/\s\0]/.test(name) && Buffer.byteLength(name) <= 15 && name !== "..", () => "no name of a link");
        },
        mac(given) {
          const mac = parseMac("neighbour", given);
          hold(macOf(macToBytes(mac)) === mac, () => "is another address");
        },
        host: (given) => parseHostPrefix("address", given),
        route(given) {
          const network = parseRoutePrefix(given);
          hold(JSON.stringify(networkOf(network)) === JSON.stringify(network), () => "has bits behind its length");
        },
        hop: (given) => parseNextHop(given, { family: 4, address: "0.0.0.0", prefixLength: 0 }),
        ports(given) {
          const { first, last } = parsePorts(given);
          hold(first >= 1 && first <= last && last < 65_535, () => "no range of ports");
        },
        protocol: (given) => hold(parseProtocol(given) <= 255, () => "no protocol"),
      });
    },
  },
  {
    name: "inode-url",
    says: "how a client names a descriptor",
    seeds: texts("inode://4/4026531840", "inode://18446744073709551615/0"),
    words: ["inode://", "18446744073709551616", "/", "-", "0x10"],
    refusals: [NsmError],
    run(input) {
      const url = parseInodeUrl(input.toString("utf8"), "the namespace");
      const again = parseInodeUrl(formatInodeUrl(url), "the namespace");
      hold(again.dev === url.dev && again.ino === url.ino, () => "is another file when it is written and read");
      return "taken";
    },
  },
  {
    name: "cgroup-hint",
    says: "where a VFIO client believes its cgroup to be, and a name to compare with",
    seeds: texts(
      "kubepods/burstable/pod6c1f0a2e-1b7d-4c55-8d3e-0a4f9b1c2d3e/*",
      "kubepods.slice/kubepods-pod6c1f0a2e_1b7d.slice/cri-containerd-*.scope",
    ),
    words: ["*", "/", "..", "kubepods", "pod", ".slice", "kubepods-burstable-pod"],
    refusals: [AccessError],
    run(input) {
      const { podPath, podUid, containers } = parseHint(input.toString("utf8"));
      hold(!podPath.split("/").includes("..") && !podPath.startsWith("/"), () => "climbs");
      hold(isPodUid(podUid) || podUidOf(podPath.split("/").at(-1) ?? "") === podUid, () => "of another pod");
      podPaths("kubepods", podUid);
      return String(isMeant("cri-containerd-0123.scope", containers));
    },
  },
  {
    name: "label-template",
    says: "a label of a network service in the registry",
    seeds: texts("{{.nodeName}}", '{{ index . "a/b" }}', "x {{- .app -}} y", "{{/* no */}}", "plain"),
    words: ["{{", "}}", "{{- ", " -}}", " ", "/*", "*/", ".app", 'index . "'],
    refusals: [],
    run(input) {
      const template = input.toString("utf8");
      const text = renderLabel(template, { app: "a", nodeName: "n" });
      hold(text === template || !text.includes("{{"), () => "is half rendered");
      return `${text === template} ${template.split("{{").length}`;
    },
  },
  {
    name: "configuration",
    says: "values of the environment",
    seeds: texts(
      "1h30m",
      "1.5s",
      "a,b",
      "k:v,k2:v2",
      "localhost:9871",
      "[::1]:0",
      "unix:///run/a.sock",
      "spiffe://a/b*",
    ),
    words: ["h", "ms", "9223372036854775807ns", ".", ",", ":", "9999999999999999999999h", "µs"],
    refusals: [],
    run(input) {
      return takenBy(input.toString("utf8"), {
        duration(given) {
          const ms = durationFrom("1ns").parse(given);
          hold(ms > 0 && ms * 1e6 <= 2 ** 63, () => `a duration of ${ms} ms, which Go does not have`);
        },
        list: (given) => list.parse(given),
        labels: (given) => labels.parse(given),
        listen: (given) => listenOrOff.parse(given),
        target: (given) => parseCollectorTarget(given),
        socket: (given) => socketUrl.parse(given),
        ids: (given) => spiffeIds.parse(given),
        pci: (given) => parsePciAddress(given),
      });
    },
  },
  {
    name: "resource-name",
    says: "the name of a resource",
    seeds: texts("example.org/10G", "a.b-c.d/e_f.g"),
    words: ["/", ".", "-", "kubernetes.io", "requests."],
    refusals: [],
    run(input) {
      const text = input.toString("utf8");
      hold(Buffer.byteLength(socketName(text)) <= 60 && !socketName(text).includes("/"), () => "no name of a socket");
      return (
        resourceNameProblem(text)
          ?.replace(/"[^"]*"/, "#")
          .slice(0, 40) ?? "taken"
      );
    },
  },
  {
    name: "setting-text",
    says: "a setting of a link as the journal keeps it",
    seeds: [Buffer.of(1), Buffer.of(1, 2), Buffer.of(1, 2, 3, 4), Buffer.from("uplink of rack 4"), Buffer.alloc(36, 7)],
    refusals: [],
    run(input) {
      for (const isMeantAsText of [false, true]) {
        const text = settingText(input, isMeantAsText);
        const value = settingValue(text);
        const end = input.indexOf(0);
        const kept = isMeantAsText && end >= 0 ? input.subarray(0, end) : input;
        hold(value === undefined || value.equals(kept), () => `${JSON.stringify(text)} is another value`);
      }
      settingValue(input.toString("utf8").replace(/^(u8|u16|u32) .*/s, "bytes 00"));
      return settingText(input).split(" ", 1)[0] ?? "";
    },
  },
];
