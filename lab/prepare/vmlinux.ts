import { zstdDecompressSync } from "node:zlib";
import { LabError } from "./program.ts";

// Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header"
const HEADER_MAGIC = 0x202;
const SETUP_SECTORS = 0x1f1;
const PAYLOAD_OFFSET = 0x248;
const PAYLOAD_LENGTH = 0x24c;
const SECTOR_BYTES = 512;

/**
 * Takes the kernel proper out of a bzImage: QEMU starts it by PVH, without the code that decompresses itself, which takes
 * seconds where every instruction is emulated.
 * @param unxz decompresses what xz made: Debian 12's own kernel.
 */
export async function extractVmlinux(image: Buffer, unxz: (packed: Buffer) => Promise<Buffer>): Promise<Buffer> {
  if (image.toString("latin1", HEADER_MAGIC, HEADER_MAGIC + 4) !== "HdrS") throw new LabError("This is no bzImage");
  const sectors = (image[SETUP_SECTORS] || 4) + 1;
  const start = sectors * SECTOR_BYTES + image.readUInt32LE(PAYLOAD_OFFSET);
  const end = start + image.readUInt32LE(PAYLOAD_LENGTH);
  // The kernel's build puts the length of what was packed behind it.
  const payload = image.subarray(start, end - 4);
  const length = image.readUInt32LE(end - 4);
  const vmlinux = await unpackPayload(payload, unxz);
  if (vmlinux.length !== length || vmlinux.toString("latin1", 1, 4) !== "ELF") {
    throw new LabError(`The kernel in the image has ${vmlinux.length} bytes and should be an ELF file of ${length}`);
  }
  return vmlinux;
}

async function unpackPayload(payload: Buffer, unxz: (packed: Buffer) => Promise<Buffer>): Promise<Buffer> {
  const magic = payload.toString("hex", 0, 4);
  if (magic === "28b52ffd") return zstdDecompressSync(payload);
  if (magic === "fd377a58") return unxz(payload);
  throw new LabError(`The kernel image is packed in a way that the lab does not know: ${magic}`);
}
