import { call } from "./native.ts";

/** S_IFCHR, include/uapi/linux/stat.h. */
const S_IFCHR = 0o020000;

/** Major and minor number of a device. */
export interface DeviceNumber {
  readonly major: number;
  readonly minor: number;
}

/**
 * Makes a character device node. The process's umask takes bits of `mode` away.
 * @throws {KernelError} EEXIST; EPERM without CAP_MKNOD or in a user namespace.
 */
export function makeCharDevice(path: string, device: DeviceNumber, mode: number): void {
  call(`make device node ${path}`, "mknod", path, S_IFCHR | mode, devOf(device));
}

/** gnu_dev_makedev, glibc sysmacros.h: 12 + 20 bits of each, interleaved. */
export function devOf({ major, minor }: DeviceNumber): bigint {
  const [maj, min] = [BigInt(major), BigInt(minor)];
  return ((maj & 0xfffn) << 8n) | ((maj & 0xfffff000n) << 32n) | (min & 0xffn) | ((min & 0xffffff00n) << 12n);
}

/** gnu_dev_major and gnu_dev_minor of a device's number. */
export function deviceNumberOf(dev: bigint): DeviceNumber {
  return {
    major: Number(((dev >> 8n) & 0xfffn) | ((dev >> 32n) & 0xfffff000n)),
    minor: Number((dev & 0xffn) | ((dev >> 12n) & 0xffffff00n)),
  };
}
