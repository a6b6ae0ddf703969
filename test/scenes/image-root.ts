// The root of the runtime image without a container engine: what the stage `root` of the Dockerfile runs, run here.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

/** Of the image, as the Dockerfile names it. */
const ROOT_FS = "/root-fs";

/** Answers the folder that is the image's root, and how to remove it. */
export function makeImageRoot(project: string): { readonly root: string; remove(): void } {
  const folder = mkdtempSync(join(tmpdir(), "image-root-"));
  const [build, root] = [join(folder, "build"), join(folder, "root")];
  mkdirSync(build);
  for (const path of ["src", "tools", "package.json"]) {
    cpSync(join(project, path), join(build, path), {
      recursive: true,
      filter: (from) => !from.includes("node_modules"),
    });
  }
  symlinkSync(join(project, "node_modules"), join(build, "node_modules"));
  execFileSync(process.execPath, ["tools/build.ts"], { cwd: build, stdio: "pipe" });
  const PATH = `${dirname(process.execPath)}:${process.env["PATH"]}`;
  const script = rootStage(readFileSync(join(project, "Dockerfile"), "utf8")).replaceAll(ROOT_FS, root);
  execFileSync("sh", ["-c", script], { cwd: build, env: { ...process.env, PATH }, stdio: "pipe" });
  return { root, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

/** The one RUN of the stage, as a shell gets it: without its comments, and in one line. */
function rootStage(dockerfile: string): string {
  const [, stage] = /^FROM build AS root\n(?:#.*\n)*RUN ((?:.*\\\n)+.*)\n/m.exec(dockerfile) ?? [];
  if (stage === undefined) throw new Error("The Dockerfile has no stage root with one RUN");
  const lines = stage.split("\n").filter((line) => !/^\s*#/.test(line));
  return lines.join("\n").replaceAll("\\\n", "");
}
