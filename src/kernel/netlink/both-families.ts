import { Errno } from "../errno.ts";
import { KernelError } from "../error.ts";
import type { IpFamily } from "./address.ts";

const NO_SUCH_FAMILY: readonly number[] = [Errno.EAFNOSUPPORT, Errno.EOPNOTSUPP];

/** IPv4 and IPv6 as one. A kernel without IPv6 refuses the question, or answers it with all it has, which is IPv4. */
export async function bothFamilies<T extends { readonly family: IpFamily }>(
  list: (family: IpFamily) => Promise<T[]>,
): Promise<T[]> {
  const v4 = await list(4);
  try {
    return [...v4, ...(await list(6)).filter((entry) => entry.family === 6)];
  } catch (error) {
    if (error instanceof KernelError && NO_SUCH_FAMILY.includes(error.errno)) return v4;
    throw error;
  }
}
