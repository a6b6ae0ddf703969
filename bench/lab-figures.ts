import { readFileSync } from "node:fs";
import { join } from "node:path";

/** Where `npm run lab` leaves what it has measured on real virtual functions; see lab/README.md. */
const FIGURES = join(import.meta.dirname, "..", "lab", ".cache", "results", "figures.json");

/** The newest figures of the lab, by kernel; undefined when it has not run on this machine. */
export function labFigures(path = FIGURES): unknown {
  try {
    return JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}
