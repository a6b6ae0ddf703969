// The only file that loads koffi. Each function is one libc or libuv call of the node binary itself, so nothing is compiled
// on any machine. Declarations follow the man pages; a wrong one is a crash, so none is written anywhere else.
import koffi from "koffi";
import { guarded } from "../async/index.ts";
import { KernelError } from "./error.ts";

const self = koffi.load(null);
/** glibc before 2.34 keeps POSIX asynchronous I/O in a library of its own. */
const aioLibrary = loadAio();

const calls = {
  socket: self.func("int socket(int domain, int type, int protocol)"),
  socketpair: self.func("int socketpair(int domain, int type, int protocol, void *pair)"),
  bind: self.func("int bind(int fd, const void *address, uint32_t length)"),
  listen: self.func("int listen(int fd, int backlog)"),
  accept4: self.func("int accept4(int fd, void *address, void *length, int flags)"),
  connect: self.func("int connect(int fd, const void *address, uint32_t length)"),
  sendmsg: self.func("intptr_t sendmsg(int fd, const void *message, int flags)"),
  recvmsg: self.func("intptr_t recvmsg(int fd, void *message, int flags)"),
  send: self.func("intptr_t send(int fd, const void *bytes, size_t length, int flags)"),
  sendto: self.func(
    "intptr_t sendto(int fd, const void *bytes, size_t length, int flags, const void *address, uint32_t size)",
  ),
  recv: self.func("intptr_t recv(int fd, void *bytes, size_t length, int flags)"),
  recvfrom: self.func(
    "intptr_t recvfrom(int fd, void *bytes, size_t length, int flags, void *address, void *address_length)",
  ),
  getsockopt: self.func("int getsockopt(int fd, int level, int name, void *value, void *length)"),
  setsockopt: self.func("int setsockopt(int fd, int level, int name, const void *value, uint32_t length)"),
  getsockname: self.func("int getsockname(int fd, void *address, void *length)"),
  shutdown: self.func("int shutdown(int fd, int how)"),
  open: self.func("int open(const char *path, int flags, int mode)"),
  openat: self.func("int openat(int folder, const char *path, int flags, int mode)"),
  close: self.func("int close(int fd)"),
  statx: self.func("int statx(int fd, const char *path, int flags, uint32_t mask, void *into)"),
  fcntl: self.func("int fcntl(int fd, int command, int argument)"),
  flock: self.func("int flock(int fd, int operation)"),
  ioctl: self.func("int ioctl(int fd, unsigned long request, int argument)"),
  // The same function, for requests that take a structure.
  ioctl_at: self.func("ioctl", "int", ["int", "unsigned long", "void *"]),
  mknod: self.func("int mknod(const char *path, uint32_t mode, uint64_t device)"),
  // No library has a function for bpf(2): it goes by number, and bpf.ts knows the number.
  syscall: self.func("long syscall(long number, long command, void *attributes, uint32_t size)"),
  setns: self.func("int setns(int fd, int type)"),
  unshare: self.func("int unshare(int flags)"),
  setrlimit: self.func("int setrlimit(int resource, const void *limits)"),
  aio_write: aioLibrary.func("int aio_write(void *block)"),
  aio_error: aioLibrary.func("int aio_error(const void *block)"),
  aio_return: aioLibrary.func("intptr_t aio_return(void *block)"),
} as const;

function loadAio(): typeof self {
  try {
    self.func("int aio_write(void *block)");
    return self;
  } catch {
    return koffi.load("librt.so.1");
  }
}

/** glibc alone has it; other allocators have no such pages, or give them back themselves. */
const allocator = { trim: loadTrim() } as const;

function loadTrim(): ((keptBytes: number) => number) | undefined {
  try {
    return self.func("int malloc_trim(size_t kept)");
  } catch {
    return undefined;
  }
}

/** Gives pages that malloc has free back to the kernel, wherever they lie: by itself glibc does so only at the ends of its heaps. */
export function trimMemory(): void {
  allocator.trim?.(0);
}

const endProcess = self.func("void _exit(int code)");

/** Names of the calls that answer -1 with errno set. */
type NativeCall = keyof typeof calls;
type Argument = number | bigint | string | Buffer | null;

/** One call; answers its result, or minus the errno. For callers that decide on EAGAIN and its like. */
export function tryCall(name: NativeCall, ...args: readonly Argument[]): number {
  const result = Number(calls[name](...args));
  return result === -1 ? -koffi.errno() : result;
}

/**
 * One call; answers its result. `op` says what it is for: "bind /run/x.sock".
 * @throws {KernelError}
 */
export function call(op: string, name: NativeCall, ...args: readonly Argument[]): number {
  const result = tryCall(name, ...args);
  if (result < 0) throw new KernelError(op, -result);
  return result;
}

/**
 * The same off the main thread, for calls that wait in the kernel (for a link that moves to a namespace: 15 to 20 ms).
 * It takes a thread of libuv's pool, so never for a call that may not return.
 */
export function callOffThread(
  name: "send" | "sendmsg" | "recv" | "ioctl_at",
  ...args: readonly Argument[]
): Promise<number> {
  return new Promise((resolve, reject) => {
    const done = (error: Error | null, result: number | bigint) => {
      if (error) reject(error);
      else resolve(Number(result) === -1 ? -koffi.errno() : Number(result));
    };
    calls[name].async(...args, guarded("kernel-socket", done, reject));
  });
}

/**
 * Ends the process at once with this code. process.exit() waits for the threads of libuv's pool, and one that the kernel
 * holds in a read of sysfs or FUSE never comes back. Nothing runs after it, no "exit" listener either: say everything first.
 */
export function exitNow(code: number): void {
  endProcess(code);
}

const verifyCallback = koffi.proto("int ssl_verify_cb(void *store, void *argument)");
let sslCalls: ReturnType<typeof loadOpenSsl> | undefined;

/** Of the OpenSSL that the Node binary carries, for what node:tls has no option for. @throws {Error} when it exports none. */
export function openSslCalls(): ReturnType<typeof loadOpenSsl> {
  sslCalls ??= loadOpenSsl();
  return sslCalls;
}

type Native = (...args: readonly unknown[]) => unknown;

function loadOpenSsl(): Readonly<
  Record<"verifyDepth" | "control" | "setVerify" | "chainOf" | "setError" | "count" | "at" | "encode", Native>
> {
  return {
    verifyDepth: self.func("int SSL_CTX_get_verify_depth(const void *context)"),
    control: self.func("long SSL_CTX_ctrl(void *context, int command, long number, void *pointer)"),
    setVerify: self.func(
      "void SSL_CTX_set_cert_verify_callback(void *context, ssl_verify_cb *callback, void *argument)",
    ),
    chainOf: self.func("void *X509_STORE_CTX_get0_untrusted(const void *store)"),
    setError: self.func("void X509_STORE_CTX_set_error(void *store, int error)"),
    count: self.func("int OPENSSL_sk_num(const void *stack)"),
    at: self.func("void *OPENSSL_sk_value(const void *stack, int index)"),
    encode: self.func("int i2d_X509(const void *certificate, void *out)"),
  };
}

/** A function that OpenSSL can call on the main thread, for as long as the process runs; what it throws is a refusal. */
export function onSslVerify(verify: (store: unknown, argument: bigint) => number): bigint {
  const answer = (store: unknown, argument: unknown) => {
    try {
      return verify(store, argument ? BigInt(koffi.address(argument)) : 0n);
    } catch {
      return 0; // nothing may be thrown through OpenSSL
    }
  };
  return koffi.register(answer, koffi.pointer(verifyCallback));
}

/** Where the bytes of a buffer lie. Only for buffers of `offHeap`: the collector moves small ones. */
export function addressOf(buffer: Buffer): bigint {
  return BigInt(koffi.address(buffer));
}

/** Zeroed memory that never moves, so that its address may be in a kernel structure. */
export function offHeap(bytes: number): Buffer {
  return Buffer.allocUnsafeSlow(Math.max(bytes, 64)).fill(0);
}

const pollCallback = koffi.proto("void uv_poll_cb(void *handle, int status, int events)");
const asyncCallback = koffi.proto("void uv_async_cb(void *handle)");
const closeCallback = koffi.proto("void uv_close_cb(void *handle)");
const uv = {
  defaultLoop: self.func("void *uv_default_loop()"),
  handleSize: self.func("size_t uv_handle_size(int type)"),
  init: self.func("int uv_poll_init(void *loop, void *handle, int fd)"),
  start: self.func("int uv_poll_start(void *handle, int events, uv_poll_cb *callback)"),
  stop: self.func("int uv_poll_stop(void *handle)"),
  asyncInit: self.func("int uv_async_init(void *loop, void *handle, uv_async_cb *callback)"),
  close: self.func("void uv_close(void *handle, uv_close_cb *callback)"),
  ref: self.func("void uv_ref(void *handle)"),
  unref: self.func("void uv_unref(void *handle)"),
};

/** Kinds of handles, uv.h: one that any thread may wake the loop by, one that calls back when a descriptor can be used. */
const UV_ASYNC = 1;
const UV_POLL = 8;
const loop = uv.defaultLoop();
/** Keeps the memory of each open handle, by its address; libuv holds nothing but the address. */
const handles = new Map<bigint, { memory: Buffer; dispatch: (status: number, events: number) => void }>();

const dispatchNext = guarded("poll", (address: bigint, status: number, events: number) => {
  handles.get(address)?.dispatch(status, events);
});

// libuv calls these outside any callback scope of Node: promises made there would not run. setImmediate mends that.
const onPoll = koffi.register((handle: unknown, status: number, events: number) => {
  setImmediate(dispatchNext, BigInt(koffi.address(handle)), status, events);
}, koffi.pointer(pollCallback));
const onAsync = koffi.register((handle: unknown) => {
  setImmediate(dispatchNext, BigInt(koffi.address(handle)), 0, 0);
}, koffi.pointer(asyncCallback));
const onClosed = koffi.register((handle: unknown) => {
  handles.delete(BigInt(koffi.address(handle)));
}, koffi.pointer(closeCallback));

/** UV_READABLE and UV_WRITABLE, uv.h. */
export const POLL_READABLE = 1;
export const POLL_WRITABLE = 2;

/** Readiness of one descriptor, from libuv's own loop. Main thread only. */
export interface Poll {
  /** Which events to report from now on, level-triggered; 0 for none. */
  watch(events: number): void;
  /** Whether waiting for this descriptor keeps the process alive; it does by default. */
  keepAlive(yes: boolean): void;
  /** Stops for good. Call it before the descriptor is closed: its number is soon another's. */
  close(): void;
}

/**
 * Watches a descriptor.
 * @throws {KernelError} for example EPERM for a regular file.
 */
export function openPoll(fd: number, onEvents: (events: number) => void): Poll {
  const memory = offHeap(Number(uv.handleSize(UV_POLL)));
  const failed = uv.init(loop, memory, fd);
  if (failed < 0) throw new KernelError(`watch descriptor ${fd}`, -failed);
  let closed = false;
  let watching = 0;
  const dispatch = (status: number, events: number) => {
    if (closed) return;
    // POLLERR arrives as an error status, and libuv has stopped the watcher. The next call on the socket says what is
    // wrong; a socket may live on after that (netlink after ENOBUFS), so the watch continues too.
    onEvents((status < 0 ? POLL_READABLE | POLL_WRITABLE : events) & watching);
    if (status < 0 && !closed && watching !== 0) uv.start(memory, watching, onPoll);
  };
  handles.set(addressOf(memory), { memory, dispatch });
  return {
    watch(events) {
      if (closed) return;
      watching = events;
      if (events === 0) uv.stop(memory);
      else uv.start(memory, events, onPoll);
    },
    keepAlive(yes) {
      if (!closed) (yes ? uv.ref : uv.unref)(memory);
    },
    close() {
      if (closed) return;
      closed = true;
      uv.close(memory, onClosed);
    },
  };
}

/** Something that a thread of C may call to wake the main thread. */
export interface Wake {
  /** Address of a function void(void *), to be called with `argument`. */
  readonly functionAddress: bigint;
  readonly argument: bigint;
  /** Whether waiting for it keeps the process alive; it does not by default. */
  keepAlive(yes: boolean): void;
}

/** Opens a wake; several calls in a row may arrive as one. It stays open for as long as the process runs. */
export function openWake(onWake: () => void): Wake {
  const memory = offHeap(Number(uv.handleSize(UV_ASYNC)));
  const failed = uv.asyncInit(loop, memory, onAsync);
  if (failed < 0) throw new KernelError("open a wake-up of the main thread", -failed);
  uv.unref(memory);
  handles.set(addressOf(memory), { memory, dispatch: onWake });
  return {
    functionAddress: BigInt(koffi.address(self.symbol("uv_async_send", "void"))),
    argument: addressOf(memory),
    keepAlive: (yes) => (yes ? uv.ref : uv.unref)(memory),
  };
}

/** Lets the C library run so many asynchronous writes at once, each on a small thread of its own (glibc: 20 by default). */
export function allowAioThreads(count: number): void {
  let aioInit: (settings: Buffer) => void;
  try {
    aioInit = aioLibrary.func("void aio_init(const void *settings)");
  } catch {
    return; // musl has no limit and no such function
  }
  // struct aioinit, aio.h: int aio_threads, aio_num, five unused or internal, aio_idle_time at 24 (seconds).
  const settings = Buffer.alloc(32);
  settings.writeInt32LE(count, 0);
  settings.writeInt32LE(count, 4);
  settings.writeInt32LE(1, 24);
  aioInit(settings);
}
