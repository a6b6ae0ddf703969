// A pod's own driver, as far as VFIO goes: opens the group of a virtual function, gives it memory for DMA, opens the function,
// reads its configuration space and resets it. A static program without a library: it runs in any cgroup and namespace at
// once, and any C compiler makes it. Numbers are those of include/uapi/linux/vfio.h and of x86-64's system calls.
//
//   vfio-client CONTAINER GROUP ADDRESS    for example: vfio-client /dev/vfio/vfio /dev/vfio/12 0000:01:10.0
//
// Says a word for each step that held: "group", "container", "dma", "device", "config 808610ca", "reset". Then it holds what
// it has open until its standard input ends. A step that fails is told with its error number, "group: error 1", status 1.

enum { READ = 0, WRITE = 1, OPEN = 2, IOCTL = 16, PREAD = 17, EXIT = 60 };
enum { READ_WRITE = 2 };
enum {
  SET_IOMMU = 0x3b66,
  GROUP_STATUS = 0x3b67,
  GROUP_SET_CONTAINER = 0x3b68,
  GROUP_DEVICE = 0x3b6a,
  REGION_INFO = 0x3b6c,
  DEVICE_RESET = 0x3b6f,
  MAP_DMA = 0x3b71
};
enum { TYPE1_V2 = 3, GROUP_VIABLE = 1, CONFIG_REGION = 7, DMA_READ_WRITE = 3, MEMORY_BYTES = 1 << 20, NOT_PERMITTED = 1 };

static char memory[MEMORY_BYTES] __attribute__((aligned(4096)));

static long call(long number, long a, long b, long c, long d) {
  long result;
  __asm__ volatile("mov %5, %%r10\n\tsyscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(d)
                   : "rcx", "r10", "r11", "memory");
  return result;
}

static void say(const char *text) {
  long length = 0;
  while (text[length]) length++;
  call(WRITE, 1, (long)text, length, 0);
}

static void sayNumber(unsigned long number, int base) {
  char digits[24];
  char *at = digits + sizeof digits - 1;
  *at = 0;
  do *--at = "0123456789abcdef"[number % base];
  while (number /= base);
  say(at);
}

/** Tells that a step held, or ends the program with what the kernel answered. */
static long step(const char *name, long result) {
  say(name);
  if (result < 0) {
    say(": error ");
    sayNumber(-result, 10);
    say("\n");
    call(EXIT, 1, 0, 0, 0);
  }
  say("\n");
  return result;
}

static void openGroup(const char *containerPath, const char *groupPath, long *container, long *group) {
  struct { unsigned argsz, flags; } status = { sizeof status, 0 };
  *group = step("group", call(OPEN, (long)groupPath, READ_WRITE, 0, 0));
  call(IOCTL, *group, GROUP_STATUS, (long)&status, 0);
  if (!(status.flags & GROUP_VIABLE)) step("viable", -NOT_PERMITTED);
  *container = step("container", call(OPEN, (long)containerPath, READ_WRITE, 0, 0));
  int number = *container;
  long result = call(IOCTL, *group, GROUP_SET_CONTAINER, (long)&number, 0);
  if (result >= 0) result = call(IOCTL, *container, SET_IOMMU, TYPE1_V2, 0);
  if (result < 0) step("iommu", result);
}

static void mapMemory(long container) {
  struct { unsigned argsz, flags; unsigned long address, iova, size; } map = {
    sizeof map, DMA_READ_WRITE, (unsigned long)memory, 0, MEMORY_BYTES
  };
  step("dma", call(IOCTL, container, MAP_DMA, (long)&map, 0));
}

static void useDevice(long group, const char *address) {
  struct { unsigned argsz, flags, index, capability; unsigned long size, offset; } region = {
    sizeof region, 0, CONFIG_REGION, 0, 0, 0
  };
  unsigned short ids[2] = { 0, 0 };
  long device = step("device", call(IOCTL, group, GROUP_DEVICE, (long)address, 0));
  call(IOCTL, device, REGION_INFO, (long)&region, 0);
  long length = call(PREAD, device, (long)ids, sizeof ids, region.offset);
  if (length != sizeof ids) step("config", length < 0 ? length : -NOT_PERMITTED);
  say("config ");
  sayNumber(((unsigned long)ids[0] << 16) | ids[1], 16);
  say("\n");
  step("reset", call(IOCTL, device, DEVICE_RESET, 0, 0));
}

void run(long *stack) {
  const char **arguments = (const char **)(stack + 1);
  long container, group;
  char byte;
  if (stack[0] != 4) {
    say("usage: vfio-client CONTAINER GROUP ADDRESS\n");
    call(EXIT, 2, 0, 0, 0);
  }
  openGroup(arguments[1], arguments[2], &container, &group);
  mapMemory(container);
  useDevice(group, arguments[3]);
  while (call(READ, 0, (long)&byte, 1, 0) > 0) {}
  call(EXIT, 0, 0, 0, 0);
}

__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall run\n");
