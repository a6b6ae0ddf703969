// A guest's disk that forgets, at a power cut, what was not flushed: QEMU itself forgets nothing when it is killed, for what it has
// written is with the host's kernel. So it logs each write and each flush, and the disk after the cut is made from the log.
import {
  closeSync,
  copyFileSync,
  fstatSync,
  mkdirSync,
  openSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

const SIZE_BYTES = 32 * 1024 * 1024;

// Documentation/admin-guide/device-mapper/log-writes.rst of the kernel: QEMU's driver writes the same format, little-endian.
const MAGIC = 0x6a736677736872n;
const SECTOR_BYTES = 512;
const FLUSH = 1;
const DISCARD = 4;

/** What a power cut did to a disk. */
export interface PowerCut {
  /** Writes that a flush came after. */
  readonly kept: number;
  /** Writes that are gone: of the last flush and later. */
  readonly lost: number;
}

/** The disk of one guest, in a folder of its own. */
export class GuestDisk {
  readonly #folder: string;

  /** Empty: the guest has to format it. */
  constructor(folder: string) {
    this.#folder = folder;
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    writeFileSync(this.#image, "");
    truncateSync(this.#image, SIZE_BYTES);
  }

  /** Everything is written to a copy, and logged. To be called before each boot. */
  insert(): void {
    copyFileSync(this.#image, this.#copy);
    writeFileSync(this.#log, "");
  }

  /** QEMU's arguments. The guest sees /dev/vda, with a write cache that wants to be flushed. */
  get arguments(): readonly string[] {
    const node = {
      driver: "blklogwrites",
      "node-name": "disk",
      file: { driver: "file", filename: this.#copy },
      log: { driver: "file", filename: this.#log },
      "log-sector-size": SECTOR_BYTES,
    };
    return [
      ...["-blockdev", JSON.stringify(node)],
      ...["-device", "virtio-blk-pci,drive=disk,write-cache=on,discard=off,write-zeroes=off"],
    ];
  }

  /** After the guest is gone: the disk is as its last flush has left it. */
  cutPower(): PowerCut {
    const log = openSync(this.#log, "r");
    const image = openSync(this.#image, "r+");
    try {
      const writes = readLog(log);
      const lastFlush = writes.findLastIndex(({ isFlush }) => isFlush);
      const kept = writes.slice(0, Math.max(0, lastFlush)).filter(({ bytes }) => bytes > 0);
      for (const { at, from, bytes } of kept) {
        const data = Buffer.alloc(bytes);
        if (readSync(log, data, 0, bytes, from) !== bytes)
          throw new RangeError("The log of the disk ends within a write");
        writeSync(image, data, 0, bytes, at);
      }
      return { kept: kept.length, lost: writes.filter(({ bytes }) => bytes > 0).length - kept.length };
    } finally {
      closeSync(log);
      closeSync(image);
    }
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  get #image(): string {
    return join(this.#folder, "image");
  }

  get #copy(): string {
    return join(this.#folder, "copy");
  }

  get #log(): string {
    return join(this.#folder, "log");
  }
}

/** One entry of the log. */
interface LoggedWrite {
  /** Where on the disk. */
  readonly at: number;
  /** Where in the log. */
  readonly from: number;
  readonly bytes: number;
  /** What was written before it is on the disk for good. */
  readonly isFlush: boolean;
}

/** What is behind the last flush may be there in part, and only its number matters. */
function readLog(file: number): readonly LoggedWrite[] {
  const { size } = fstatSync(file);
  const head = readSector(file, 0);
  // The head is written with each flush, and counts the entries up to it.
  const flushed = Number(head.readBigUInt64LE(16));
  if (flushed > 0 && head.readBigUInt64LE(0) !== MAGIC) throw new RangeError("This is no log of a disk");
  const writes: LoggedWrite[] = [];
  for (let position = SECTOR_BYTES; position + SECTOR_BYTES <= size; ) {
    const entry = readSector(file, position);
    const [sector = 0, sectors = 0, flags = 0] = [0, 8, 16].map((at) => Number(entry.readBigUInt64LE(at)));
    if (sectors === 0 && flags === 0) break; // room that no write has reached
    const bytes = (flags & DISCARD) === 0 ? sectors * SECTOR_BYTES : 0;
    const from = position + SECTOR_BYTES;
    writes.push({ at: sector * SECTOR_BYTES, from, bytes, isFlush: (flags & FLUSH) !== 0 });
    position = from + bytes;
  }
  if (writes.length < flushed) throw new RangeError(`The log of the disk has ${writes.length} of ${flushed} entries`);
  return writes;
}

function readSector(file: number, position: number): Buffer {
  const bytes = Buffer.alloc(SECTOR_BYTES);
  readSync(file, bytes, 0, SECTOR_BYTES, position);
  return bytes;
}
