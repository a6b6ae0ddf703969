// The page's own files, for browsers. From the sources they are read as they are; the build puts their text in this module's place
// (tools/bundle-options.ts).
import { readFileSync } from "node:fs";

/** Served as /page.css. */
export const pageStyle = readText("page.css");

/** Served as /page.js. */
export const pageScript = readText("page.js");

function readText(name: string): string {
  return readFileSync(new URL(`./page/${name}`, import.meta.url), "utf8");
}
