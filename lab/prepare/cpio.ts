/** A file of an initramfs. */
export interface CpioFile {
  /** From the root, without a leading slash. */
  readonly path: string;
  readonly mode: number;
  readonly bytes?: Buffer;
}

const DIRECTORY = 0o040000;
const REGULAR = 0o100000;

/** An archive as the kernel unpacks it (Documentation/driver-api/early-userspace/buffer-format.rst). Folders come first. */
export function cpioArchive(folders: readonly string[], files: readonly CpioFile[]): Buffer {
  const parts = [
    ...folders.map((path) => entry({ path, mode: DIRECTORY | 0o755 })),
    ...files.map((file) => entry({ ...file, mode: REGULAR | file.mode })),
    entry({ path: "TRAILER!!!", mode: 0 }),
  ];
  return Buffer.concat(parts);
}

function entry({ path, mode, bytes = Buffer.alloc(0) }: CpioFile): Buffer {
  const name = Buffer.from(`${path}\0`);
  // magic, inode, mode, uid, gid, links, mtime, size, device (2), device of a device node (2), length of the name, checksum
  const fields = [0, mode, 0, 0, 1, 0, bytes.length, 0, 0, 0, 0, name.length, 0];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`;
  return Buffer.concat([padded(Buffer.concat([Buffer.from(header), name])), padded(bytes)]);
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
}
