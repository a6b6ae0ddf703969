import { globSync, readFileSync } from "node:fs";
import { LabError } from "./program.ts";

/**
 * The Debian mirror that this machine's own apt uses; LAB_DEBIAN_MIRROR names another one.
 * @throws {LabError} where neither is there, as on Ubuntu.
 */
export function debianMirror(): string {
  const named = process.env["LAB_DEBIAN_MIRROR"];
  if (named) return named;
  const files = globSync(["/etc/apt/sources.list", "/etc/apt/sources.list.d/*.{list,sources}"]).sort();
  const mirror = files.map((file) => mirrorIn(readFileSync(file, "utf8"))).find((found) => found !== undefined);
  if (mirror !== undefined) return mirror;
  throw new LabError(
    "Cannot find where to get Debian's packages from: this machine's apt names no Debian mirror; name one with LAB_DEBIAN_MIRROR",
  );
}

/** In either form of sources.list(5), the first address that ends in /debian; comments do not count. */
export function mirrorIn(sources: string): string | undefined {
  const lines = sources.split("\n").filter((line) => /^\s*(deb|uris:)\s/i.test(line));
  return lines.flatMap((line) => line.match(/https?:\/\/\S+\/debian(?=\/?(\s|$))/) ?? []).at(0);
}
