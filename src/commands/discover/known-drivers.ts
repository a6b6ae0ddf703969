/**
 * Drivers whose virtual functions have a driver of another name, after the MODULE_DEVICE_TABLE of each in drivers/net/ethernet.
 * All others that make virtual functions serve them too: those in `servesBoth`. Names are the drivers' own, as sysfs has them, which
 * are not always the modules' (LiquidIO is liquidio's). Held against the modules of Debian's linux-image-6.1.0-50-amd64, where
 * those of arm64, funeth, fm10k, hns3, idpf and ionic are missing: these are by the sources alone.
 */
const vfDrivers: Readonly<Record<string, string>> = {
  cxgb4: "cxgb4vf",
  fsl_enetc: "fsl_enetc_vf",
  i40e: "iavf",
  ice: "iavf",
  igb: "igbvf",
  ixgbe: "ixgbevf",
  LiquidIO: "LiquidIO_VF",
  nfp: "nfp_netvf",
  nicpf: "nicvf",
  octeon_ep: "octeon_ep_vf",
  rvu_nicpf: "rvu_nicvf",
};

const servesBoth: readonly string[] = [
  "be2net",
  "bnx2x",
  "bnxt_en",
  "enic",
  "fm10k",
  "funeth",
  "hinic",
  "hns3",
  "idpf",
  "ionic",
  "mlx4_core",
  "mlx5_core",
  "qede",
  "qlcnic",
  "sfc",
];

/** The driver that makes network devices of the virtual functions of a physical one with this driver; undefined: not known. */
export function knownVfDriver(pfDriver: string): string | undefined {
  return vfDrivers[pfDriver] ?? (servesBoth.includes(pfDriver) ? pfDriver : undefined);
}

/** Vendors of adapters with virtual functions, by their number in the PCI ID repository. */
const vendors: Readonly<Record<number, string>> = {
  4215: "marvell",
  4319: "emulex",
  4407: "cisco",
  5157: "chelsio",
  5348: "broadcom",
  5555: "mellanox",
  6013: "marvell",
  6436: "solarflare",
  6487: "nxp",
  6629: "huawei",
  6638: "netronome",
  7640: "pensando",
  7597: "fungible",
  32902: "intel",
};

/** The vendor as a capability: its name, or its number where it has none here. */
export function vendorCapability(vendorId: number): string {
  return vendors[vendorId] ?? `vendor-${vendorId.toString(16).padStart(4, "0")}`;
}
