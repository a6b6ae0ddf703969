// Ends a forwarder at a chosen step as SIGKILL does: from then on nothing that it does reaches the disk, the kernel or the
// endpoint.
import type { DeviceAccess, DeviceGrant } from "../../src/access/index.ts";
import type { Host } from "../../src/host.ts";
import { Journal } from "../../src/journal/index.ts";
import { type HostFiles, Rtnl } from "../../src/kernel/index.ts";
import { RpcClient } from "../../src/rpc/index.ts";

/** One forwarder, from its start to its crash. */
interface Life {
  isOver: boolean;
  readonly ending: (() => unknown)[];
}

/** Calls that change something in a network namespace. */
const NETLINK_WRITES = [
  "setLink",
  "addAddress",
  "deleteAddress",
  "addRoute",
  "deleteRoute",
  "addRule",
  "deleteRule",
  "addNeighbour",
  "deleteNeighbour",
] as const;

/**
 * Counts the steps of the forwarder under test that change the disk or the kernel, and ends it just before one of them. Its
 * memory lives on in this process, but each further step of it fails; reads go on, they leave no trace.
 */
export class Crashes {
  /** The steps since `arm`, in words; after a crash those of the next forwarder too. */
  steps: string[] = [];
  /** The step that it did not live to see. */
  last = "its end";
  #life: Life = { isOver: false, ending: [] };
  #at = Number.POSITIVE_INFINITY;
  #crashed = Promise.withResolvers<void>();
  readonly #owners = new WeakMap<object, Life>();

  /** From now on, ends it just before the step of this number. */
  arm(at: number): void {
    this.steps = [];
    this.last = "its end";
    this.#at = at;
    this.#crashed = Promise.withResolvers();
  }

  /** Resolves when it has come to that step. */
  get crashed(): Promise<void> {
    return this.#crashed.promise;
  }

  /** Ends it now, wherever it is; the next host belongs to another one. */
  end(): void {
    this.#life.isOver = true;
    for (const end of this.#life.ending) end();
    this.#life = { isOver: false, ending: [] };
    this.#at = Number.POSITIVE_INFINITY;
  }

  /** The host of the next forwarder. */
  readonly between = (host: Host): Host => {
    const life = this.#life;
    return {
      ...host,
      devices: this.#files(life, "devices", host.devices),
      drivers: this.#files(life, "drivers", host.drivers),
      pfPort: (pf) => {
        const port = host.pfPort(pf);
        const write: typeof port.write = (vf, change) =>
          this.#step(life, `set ${Object.keys(change).join(", ")}`, () => port.write(vf, change));
        return { read: (vf) => port.read(vf), write };
      },
      openAccess: (parts) => this.#access(life, host.openAccess(parts)),
    };
  };

  /** What a dead forwarder kept is kept no more. */
  #access(life: Life, access: DeviceAccess): DeviceAccess {
    const grant = (made: DeviceGrant): DeviceGrant => ({
      get state() {
        return made.state;
      },
      apply: (signal) => this.#step(life, "let the pod at its devices", () => made.apply(signal)),
      stands: () => made.stands(),
      revoke: () => this.#step(life, "keep the pod from its devices", () => made.revoke()),
      letGo: () => made.letGo(),
    });
    life.ending.push(() => access.close());
    return {
      version: access.version,
      open: (ask) => grant(access.open(ask)),
      adopt: (...args) => grant(access.adopt(...args)),
      clearStrays: (devices) => this.#step(life, "take strays away", () => access.clearStrays(devices)),
      close: () => access.close(),
    };
  }

  /** Takes the steps that no host is asked for, the journal's and those inside namespaces. Returns how to leave them be. */
  intercept(): () => void {
    const [openRtnl, put, drop] = [Rtnl.open, Journal.prototype.put, Journal.prototype.drop];
    const { call } = RpcClient.prototype;
    const crashes = this;
    Rtnl.open = (options) => {
      const rtnl = openRtnl(options);
      // The machine and the pods of the sandbox use the same class; they do not crash.
      if (new Error().stack?.includes("/src/netdev/")) crashes.#watch(rtnl);
      return rtnl;
    };
    Journal.prototype.put = function (...args) {
      return crashes.#step(crashes.#lifeOf(this), `journal ${args[0].split(" ")[0]}`, () => put.apply(this, args));
    };
    Journal.prototype.drop = function (...args) {
      return crashes.#step(crashes.#lifeOf(this), `unjournal ${args[0].split(" ")[0]}`, () => drop.apply(this, args));
    };
    RpcClient.prototype.call = function (this: RpcClient, ...args: Parameters<typeof call>) {
      const isOurs = new Error().stack?.includes("/src/nsm/downstream.ts");
      return isOurs && crashes.#lifeOf(this).isOver ? new Promise(() => {}) : call.apply(this, args);
    } as typeof call;
    return () => {
      Rtnl.open = openRtnl;
      RpcClient.prototype.call = call;
      Object.assign(Journal.prototype, { put, drop });
    };
  }

  #watch(rtnl: Rtnl): void {
    const life = this.#life;
    for (const name of NETLINK_WRITES) {
      const write = (rtnl[name] as (...args: unknown[]) => Promise<void>).bind(rtnl);
      const what = (args: unknown[]) =>
        name === "setLink" ? `set link ${Object.keys(args[1] ?? {}).join(", ")}` : name;
      Object.assign(rtnl, { [name]: (...args: unknown[]) => this.#step(life, what(args), () => write(...args)) });
    }
  }

  /** Of a journal or a client, which one forwarder makes for itself: it is known by its first use. */
  #lifeOf(part: object): Life {
    const life = this.#owners.get(part) ?? this.#life;
    this.#owners.set(part, life);
    return life;
  }

  #files(life: Life, name: string, files: HostFiles): HostFiles {
    const writeText: HostFiles["writeText"] = (path, ...rest) =>
      this.#step(life, `write ${name}/${path.split("/").at(-1)}`, () => files.writeText(path, ...rest));
    return Object.assign(Object.create(files), { writeText });
  }

  async #step<T>(life: Life, what: string, act: () => Promise<T>): Promise<T> {
    if (!life.isOver && life === this.#life && this.steps.length === this.#at) {
      life.isOver = true;
      this.last = what;
      this.#crashed.resolve();
    }
    if (!life.isOver) this.steps.push(what);
    const result = life.isOver ? undefined : await act();
    if (life.isOver) throw new Error(`The forwarder died before it could ${what}`);
    return result as T;
  }
}
