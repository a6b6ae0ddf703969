declare const brand: unique symbol;

/** A PCI address in sysfs form: domain:bus:device.function in lower-case hex, for example "0000:3b:02.1". */
export type PciAddress = string & { readonly [brand]: "PciAddress" };

// Domains have four digits on most hosts; Intel VMD and some clouds have five to eight (VMD starts at 0x10000).
const form = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/i;

/**
 * Reads an address as operators write it: the domain may be left out (0000 then) and capitals are allowed.
 * @throws {SyntaxError} when the text is no PCI address.
 */
export function parsePciAddress(text: string): PciAddress {
  const match = form.exec(text);
  if (!match) {
    throw new SyntaxError(
      `Cannot read "${text}" as a PCI address: want domain:bus:device.function in hex, as in 0000:3b:02.1`,
    );
  }
  const [, domain = "0000", bus, device, fn] = match;
  // The one cast: everything inside trusts the type.
  return `${domain}:${bus}:${device}.${fn}`.toLowerCase() as PciAddress;
}

/** Whether a name in a sysfs folder is a PCI address in the kernel's own spelling. */
export function isPciAddress(name: string): name is PciAddress {
  const match = form.exec(name);
  return match?.[1] !== undefined && name === name.toLowerCase();
}
