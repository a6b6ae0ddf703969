import { AccessError, type AccessFault } from "../access/index.ts";
import { DeadlineError } from "../async/index.ts";
import { IdentityError, type IdentityFault, PolicyError } from "../identity/index.ts";
import { InventoryError, type InventoryFault } from "../inventory/index.ts";
import { NetdevError, type NetdevFault } from "../netdev/index.ts";
import { DriverError, type DriverFault } from "../pci/index.ts";
import { RpcError, type Status } from "../rpc/index.ts";
import { NsmError, type NsmFault, textOf } from "./fault.ts";

/** The gRPC status by which a peer learns of any failure of this module or of those below. */
export function toStatus(error: unknown): RpcError {
  if (error instanceof RpcError) return error;
  return new RpcError(codeOf(error), peerText(error), { cause: error });
}

/** What names something of another peer's is for the log alone. */
function peerText(error: unknown): string {
  const replaced = (text: string, inner: DriverError) => text.replaceAll(inner.message, inner.textForPeers);
  return driverErrorsIn(error).reduce(replaced, logText(error));
}

/** The words of the original's policy check go before ours: peers and operators know them (nsm-protocol §1.7). */
export function logText(error: unknown): string {
  if (!(error instanceof PolicyError)) return textOf(error);
  const known = "networkservice: an error occurred during authorization policy check: no sufficient privileges";
  return `${known}: ${error.message}`;
}

/** What an error's text is made of. */
function driverErrorsIn(error: unknown): readonly DriverError[] {
  if (error instanceof DriverError) return [error];
  if (!(error instanceof NsmError)) return [];
  const { fault } = error;
  switch (fault.kind) {
    case "no-mechanism":
      return fault.attempts.flatMap(driverErrorsIn);
    case "candidates-failed":
      return fault.failures.flatMap((failure) => driverErrorsIn(failure.error));
    case "teardown-failed":
    case "endpoint-close-failed":
      return driverErrorsIn(fault.failure);
    default:
      return [];
  }
}

function codeOf(error: unknown): Status {
  if (error instanceof RpcError) return error.code;
  if (error instanceof NsmError) return codeOfFault(error.fault);
  if (error instanceof PolicyError) return "PERMISSION_DENIED";
  if (error instanceof InventoryError) return codeOfInventory(error.fault);
  if (error instanceof DriverError) return codeOfDriver(error.fault);
  if (error instanceof NetdevError) return codeOfNetdev(error.fault);
  if (error instanceof AccessError) return codeOfAccess(error.fault);
  if (error instanceof IdentityError) return codeOfIdentity(error.fault);
  if (error instanceof DeadlineError) return "DEADLINE_EXCEEDED";
  if (error instanceof Error && error.name === "AbortError") return "CANCELLED";
  // By its name: this module does not know the kernel's. It refused something that we had checked.
  if (error instanceof Error && error.name === "KernelError") return "INTERNAL";
  // Likewise: what cannot be remembered is not begun. The caller may try again when the disk takes it.
  if (error instanceof Error && error.name === "JournalError") return "UNAVAILABLE";
  return "UNKNOWN";
}

function codeOfFault(fault: NsmFault): Status {
  switch (fault.kind) {
    case "bad-path":
    case "too-large":
    case "bad-value":
    case "unsupported-mechanism":
    case "no-namespace":
      return "INVALID_ARGUMENT";
    case "no-mechanism":
      return fault.attempts.length > 0 ? codeOf(fault.attempts[0]) : "INVALID_ARGUMENT";
    case "service-not-found":
    case "endpoint-not-found":
    case "no-candidates":
      return "NOT_FOUND";
    case "cannot-give":
      return "UNIMPLEMENTED";
    case "candidates-failed":
      return fault.failures.length > 0 ? codeOf(fault.failures.at(-1)?.error) : "NOT_FOUND";
    case "not-the-owner":
    case "no-identity":
      return "PERMISSION_DENIED";
    case "bad-reply":
      return "INTERNAL";
    case "over-quota":
    case "too-many-calls":
    case "too-many-waiting":
      return "RESOURCE_EXHAUSTED";
    case "earlier-name":
    case "reclaiming":
    case "registry":
      return "UNAVAILABLE";
    case "teardown-failed":
    case "endpoint-close-failed":
      return codeOf(fault.failure);
  }
}

function codeOfInventory(fault: InventoryFault): Status {
  switch (fault.kind) {
    case "unknown-token":
      return "NOT_FOUND";
    case "token-in-use":
    case "vf-in-use":
    case "no-free-vf":
      return "RESOURCE_EXHAUSTED";
    case "connection-holds-vf":
    case "several-found":
      return "FAILED_PRECONDITION";
    case "unknown-vf":
    case "unknown-connection":
    case "wrong-state":
      return "INTERNAL";
  }
}

function codeOfDriver(fault: DriverFault): Status {
  switch (fault.kind) {
    case "driver-missing":
    case "no-iommu":
    case "group-shared":
    case "not-virtual":
    case "no-vfio-container":
    case "group-unreadable":
      return "FAILED_PRECONDITION";
    case "unbind-refused":
    case "bind-refused":
    case "write-stuck":
    case "no-vfio-node":
    case "group-open":
    case "no-netdev":
    case "host-uses-it":
    case "several-netdevs":
    case "gone":
      return "UNAVAILABLE";
  }
}

function codeOfNetdev(fault: NetdevFault): Status {
  switch (fault.kind) {
    case "invalid":
    case "not-a-namespace":
    case "host-namespace":
    case "mtu-out-of-range":
      return "INVALID_ARGUMENT";
    case "name-taken":
    case "neighbour-taken":
    case "address-duplicate":
      return "ALREADY_EXISTS";
    case "no-free-table":
    case "crowded":
      return "RESOURCE_EXHAUSTED";
    case "gone":
    case "not-its-link":
    case "unsettled":
    case "address-tentative":
    case "busy":
      return "UNAVAILABLE";
    case "mac-not-taken":
    case "vf-silent":
    case "vf-setting":
      return "FAILED_PRECONDITION";
    case "left-behind":
    case "not-cleared":
      return "INTERNAL";
  }
}

function codeOfAccess(fault: AccessFault): Status {
  switch (fault.kind) {
    case "bad-name":
      return "INVALID_ARGUMENT";
    case "foreign-cgroup":
      return "PERMISSION_DENIED";
    case "no-hierarchy":
    case "no-pod":
    case "refused-above":
    case "foreign-filter":
      return "FAILED_PRECONDITION";
    case "no-cgroup":
    case "not-taken":
    case "unsettled":
    case "not-revoked":
      return "UNAVAILABLE";
  }
}

function codeOfIdentity(fault: IdentityFault): Status {
  switch (fault.kind) {
    case "bad-token":
    case "bad-spiffe-id":
    case "bad-certificate":
    case "untrusted-peer":
      return "PERMISSION_DENIED";
    case "no-svid":
    case "expired":
      return "UNAVAILABLE";
    case "bad-svid":
    case "unusable-key":
    case "bad-socket":
    case "bad-policy-mask":
      return "INTERNAL";
  }
}
