// What is in the cache, and whether it still is what was put there.
import { createHash } from "node:crypto";
import {
  existsSync,
  globSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

/** What a cached folder was made by and from, and the sum of what is in it. */
interface Manifest {
  readonly recipe: string;
  readonly from: readonly string[];
  readonly sha256: string;
}

const MANIFEST = "manifest.json";

/**
 * Makes a folder of the cache, unless it is there, was made by the same recipe and has the contents that it had then. It
 * appears whole or not at all. `make` answers with what it was made from, for the operator.
 */
export async function cachedFolder(
  folder: string,
  recipe: unknown,
  make: (folder: string) => Promise<readonly string[]>,
): Promise<void> {
  const digest = createHash("sha256").update(JSON.stringify(recipe)).digest("hex");
  const known = readManifest(folder);
  if (known?.recipe === digest && known.sha256 === treeDigest(folder)) return;
  const fresh = `${folder}.${process.pid}`;
  try {
    rmSync(fresh, { recursive: true, force: true });
    mkdirSync(fresh, { recursive: true });
    const from = await make(fresh);
    const manifest: Manifest = { recipe: digest, from, sha256: treeDigest(fresh) };
    writeFileSync(join(fresh, MANIFEST), `${JSON.stringify(manifest, undefined, 2)}\n`);
    rmSync(folder, { recursive: true, force: true });
    renameSync(fresh, folder);
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
}

function readManifest(folder: string): Manifest | undefined {
  const path = join(folder, MANIFEST);
  return existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as Manifest) : undefined;
}

/** Of all names, links and contents beneath the folder but the manifest. */
export function treeDigest(folder: string): string {
  const hash = createHash("sha256");
  for (const path of globSync("**", { cwd: folder }).sort()) {
    if (path === MANIFEST) continue;
    const full = join(folder, path);
    const stat = lstatSync(full);
    hash.update(`${path}\0`);
    if (stat.isSymbolicLink()) hash.update(readlinkSync(full));
    else if (stat.isFile()) hash.update(readFileSync(full));
  }
  return hash.digest("hex");
}
