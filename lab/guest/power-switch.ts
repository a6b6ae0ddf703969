import { openSync, writeFileSync, writeSync } from "node:fs";

/**
 * Readies what stops the machine at once. Returns how: the machine stands still, with whatever every program and the kernel have in
 * memory, until the host cuts its power; and what it is to know when it is booted again comes with the kernel's last words.
 */
export function readyPowerSwitch(): (remembered: readonly object[]) => never {
  writeFileSync("/proc/sys/kernel/panic", "0"); // it would start again by itself
  writeFileSync("/proc/sys/kernel/printk_devkmsg", "on\n");
  const [words, trigger] = [openSync("/dev/kmsg", "w"), openSync("/proc/sysrq-trigger", "w")];
  return (remembered) => {
    for (const fact of remembered) writeSync(words, `<1>lab remembers ${JSON.stringify(fact)}`);
    writeSync(trigger, "c");
    throw new Error("The machine continued after it was stopped");
  };
}
