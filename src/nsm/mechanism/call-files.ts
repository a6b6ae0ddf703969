import { type Clock, startDeadline } from "../../async/index.ts";
import type { Mechanism } from "../../gen/connection_pb.ts";
import { NsmError, textOf } from "../fault.ts";
import type { OwnedFd, PassedFds } from "../peers.ts";
import { type InodeUrl, isInodeUrl, parseInodeUrl } from "./inode-url.ts";
import type { PassedFilesOfCall } from "./mechanism.ts";
import { PARAMETER } from "./requested-mechanism.ts";

/**
 * A file is sent before the call that names it, so it is here or will never come. The wait covers a peer that writes late
 * and stays far below any caller's deadline.
 */
const WAIT_LIMIT_MS = 5_000;

/** The files of one call; `end` when the call is done. */
export interface CallFiles extends PassedFilesOfCall {
  end(): void;
}

/**
 * The original's recvfd. Keeps a connection's own copy of a passed file only while calls that name it are running (E12, W15).
 * Two clients of one pod pass the same namespace; the kernel side keeps one copy of it, so the copy goes when the last of
 * their calls ends.
 */
export class FilesOfCalls {
  readonly #clock: Clock;
  readonly #users = new WeakMap<PassedFds, Map<string, number>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Notes at once which files the call names, before it waits for anything. */
  open(fds: PassedFds | undefined, mechanisms: readonly (Mechanism | undefined)[]): CallFiles {
    const urls = namedFiles(mechanisms);
    if (fds) {
      for (const url of urls) {
        fds.expect(url);
        this.#count(fds, url, 1);
      }
    }
    let open = true;
    return {
      receive: (url, signal) => this.#receive(fds, url, signal),
      end: () => {
        if (fds && open) for (const url of urls) this.#count(fds, url, -1);
        open = false;
      },
    };
  }

  async #receive(fds: PassedFds | undefined, url: InodeUrl, signal: AbortSignal): Promise<OwnedFd> {
    if (!fds) {
      const problem = "the call came over a connection that carries no files, use a unix socket";
      throw new NsmError({ kind: "no-namespace", url: url.text, problem });
    }
    const deadline = startDeadline(this.#clock, WAIT_LIMIT_MS, { what: `waiting for ${url.text}`, parent: signal });
    try {
      return await fds.receive(url, deadline.signal);
    } catch (error) {
      signal.throwIfAborted();
      throw new NsmError({ kind: "no-namespace", url: url.text, problem: `it did not arrive: ${textOf(error)}` });
    } finally {
      deadline.end();
    }
  }

  #count(fds: PassedFds, url: InodeUrl, change: 1 | -1): void {
    const users = this.#users.get(fds) ?? new Map<string, number>();
    this.#users.set(fds, users);
    const left = (users.get(url.text) ?? 0) + change;
    if (left > 0) users.set(url.text, left);
    else {
      users.delete(url.text);
      fds.release(url);
    }
  }
}

/** Texts that are no inode URLs are not files; the reader of the mechanism says what is wrong with them. */
function namedFiles(mechanisms: readonly (Mechanism | undefined)[]): readonly InodeUrl[] {
  const texts = new Set(mechanisms.map((mechanism) => mechanism?.parameters[PARAMETER.inodeUrl] ?? ""));
  const urls: InodeUrl[] = [];
  for (const text of texts) {
    try {
      if (isInodeUrl(text)) urls.push(parseInodeUrl(text, "inodeURL"));
    } catch {
      // Unreadable: no file can be named by it.
    }
  }
  return urls;
}
