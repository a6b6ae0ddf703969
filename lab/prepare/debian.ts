// Debian packages without installing any: a package manager of our own in one folder, which shares nothing with the machine's
// but its keys and its proxy settings. Nothing here needs root.
import { accessSync, constants, existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { LabError, runProgram } from "./program.ts";

const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
const BACKPORTS = "bookworm-backports";

/** Where a kernel comes from: the meta package of that suite names the newest one. */
export type KernelSuite = "bookworm" | typeof BACKPORTS;

export interface DebianOptions {
  /** For its lists and what it downloads. */
  readonly folder: string;
  readonly mirror: string;
}

/** A package manager that downloads and verifies, as Debian's keys have signed, and never installs. */
export class Debian {
  readonly #options: DebianOptions;
  readonly #archives: string;
  readonly #settings: readonly string[];

  constructor(options: DebianOptions) {
    const { folder } = options;
    this.#options = options;
    this.#archives = join(folder, "cache", "archives");
    const settings = {
      "Dir::Etc::sourcelist": "/dev/null",
      "Dir::Etc::sourceparts": join(folder, "sources"),
      "Dir::Etc::preferences": "/dev/null",
      "Dir::Etc::preferencesparts": "/dev/null",
      "Dir::State": join(folder, "state"),
      // Nothing is installed: what is asked for comes with all that it needs, whatever this machine has.
      "Dir::State::status": join(folder, "state", "status"),
      "Dir::Cache": join(folder, "cache"),
      "Dir::Cache::archives": `${this.#archives}/`,
      "APT::Architecture": "amd64",
      "APT::Architectures": "amd64",
      "APT::Install-Recommends": "false",
      "APT::Sandbox::User": "",
      "Acquire::Languages": "none",
      "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
      "Acquire::Retries": "3",
      "Debug::NoLocking": "true",
    };
    this.#settings = Object.entries(settings).flatMap(([key, value]) => ["-o", `${key}=${value}`]);
  }

  /** Reads what the archive has. @throws {LabError} where there is no apt, no key or no way to the archive. */
  async update(): Promise<void> {
    const { folder, mirror } = this.#options;
    requireTools();
    for (const name of ["sources", "state/lists/partial", "cache/archives/partial"]) {
      mkdirSync(join(folder, name), { recursive: true });
    }
    writeFileSync(join(folder, "state", "status"), "");
    const suites = `bookworm bookworm-updates ${BACKPORTS}`;
    const source = `Types: deb\nURIs: ${mirror}\nSuites: ${suites}\nComponents: main\nSigned-By: ${KEYRING}\n`;
    writeFileSync(join(folder, "sources", "lab.sources"), source);
    await this.#run("apt-get", "update", "-qq", "--error-on=any").catch((error: unknown) => {
      throw new LabError(
        `Cannot read the package lists of ${mirror} (${suites}). Is it reachable from here? Another mirror is named with ` +
          `LAB_DEBIAN_MIRROR, a proxy as for any apt-get.\n${String(error)}`,
      );
    });
  }

  /** Downloads packages with everything they need, the newest that there is; answers with the files. */
  async downloadClosure(packages: readonly string[]): Promise<readonly string[]> {
    await this.#run("apt-get", "install", "-qq", "-y", "--download-only", "-t", BACKPORTS, ...packages);
    const names = readdirSync(this.#archives).filter((name) => name.endsWith(".deb"));
    return names.sort().map((name) => join(this.#archives, name));
  }

  /** Downloads the newest kernel of a suite; answers with the file. */
  async downloadKernel(suite: KernelSuite): Promise<string> {
    const meta = (await this.#run("apt-cache", "policy", "linux-image-amd64")).toString();
    const version = versionOf(meta, suite);
    const shown = (await this.#run("apt-cache", "show", `linux-image-amd64=${version}`)).toString();
    const image = /^Depends: (linux-image-\S+) \(= (\S+)\)/m.exec(shown);
    if (!image) throw new LabError(`Cannot find the kernel of ${suite}: linux-image-amd64 ${version} depends on none`);
    const folder = join(this.#options.folder, suite);
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    await runProgram("apt-get", [...this.#settings, "download", "-qq", `${image[1]}=${image[2]}`], { cwd: folder });
    const [file] = readdirSync(folder).filter((name) => name.endsWith(".deb"));
    if (!file) throw new LabError(`Cannot get ${image[1]} of ${suite}: apt-get downloaded nothing`);
    return join(folder, file);
  }

  #run(tool: string, command: string, ...args: readonly string[]): Promise<Buffer> {
    return runProgram(tool, [...this.#settings, command, ...args]);
  }
}

/** Unpacks packages into one tree. No script of theirs runs. */
export async function unpack(files: readonly string[], folder: string): Promise<void> {
  mkdirSync(folder, { recursive: true });
  for (const file of files) await runProgram("dpkg-deb", ["--extract", file, folder]);
}

/** The table of `apt-cache policy` lists each version with, below it, the suites that have it. */
function versionOf(policy: string, suite: KernelSuite): string {
  let version = "";
  for (const line of policy.split("\n")) {
    version = /^ (?: {4}|\*{3} )(\S+) -?\d+$/.exec(line)?.[1] ?? version;
    if (line.includes(` ${suite}/main `)) return version;
  }
  throw new LabError(`Cannot find the kernel of ${suite}: the mirror has no linux-image-amd64 of that suite`);
}

function requireTools(): void {
  if (process.arch !== "x64") throw new LabError(`Cannot prepare the lab on ${process.arch}: its programs are x86-64`);
  const missing = ["apt-get", "apt-cache", "dpkg-deb", "tar"].filter((tool) => !isOnPath(tool));
  if (missing.length > 0) {
    throw new LabError(
      `Cannot prepare the lab: ${missing.join(", ")} not found. Its QEMU and kernels are Debian packages; prepare it on ` +
        "Debian, Ubuntu or in a container of theirs, or copy lab/.cache from a machine that has prepared it",
    );
  }
  if (!existsSync(KEYRING)) {
    throw new LabError(`Cannot prepare the lab: no ${KEYRING}; install the package debian-archive-keyring`);
  }
}

function isOnPath(tool: string): boolean {
  return (process.env["PATH"] ?? "").split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, tool), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
