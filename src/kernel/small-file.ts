import { constants } from "node:fs";
import { open, stat } from "node:fs/promises";
import { Errno } from "./errno.ts";
import { KernelError } from "./error.ts";
import { attempt } from "./host-files.ts";

const MEBIBYTE = 1024 * 1024;

/**
 * The text of a file that a person wrote. Never waits for a writer, and never reads a device.
 * @throws {KernelError} with a detail: EINVAL for what is no file, EFBIG for one above the limit; else the kernel's errno.
 */
export async function readSmallFile(path: string, mostMebibytes: number): Promise<string> {
  return (await readSmallBytes(path, mostMebibytes)).toString("utf8");
}

/** The same for what is no text. @throws {KernelError} */
export async function readSmallBytes(path: string, mostMebibytes: number): Promise<Buffer> {
  const op = `read ${path}`;
  return attempt(op, async () => {
    if (!(await stat(path)).isFile()) throw new KernelError(op, Errno.EINVAL, "it is no file");
    const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      // Its size is not read: /proc says 0, and a file that is written to grows.
      const parts: Buffer[] = [];
      let left = mostMebibytes * MEBIBYTE;
      const stream: AsyncIterable<Buffer> = handle.createReadStream({ autoClose: false, end: left });
      for await (const part of stream) {
        left -= part.length;
        if (left < 0) throw new KernelError(op, Errno.EFBIG, `it is larger than ${mostMebibytes} MiB`);
        parts.push(part);
      }
      return Buffer.concat(parts);
    } finally {
      await handle.close();
    }
  });
}
