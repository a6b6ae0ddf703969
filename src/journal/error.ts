/** What was wrong, to decide by; the message is for the operator. */
type JournalFault =
  /** A later forwarder wrote it. To continue would lose what it says. */
  | { readonly kind: "newer-version"; readonly version: number; readonly known: number }
  /** The disk is full, read-only or failing. */
  | { readonly kind: "not-writable"; readonly problem: string }
  /** The forwarder is stopping. */
  | { readonly kind: "closed" };

/** The journal could not be read or written. */
export class JournalError extends Error {
  override readonly name = "JournalError";
  readonly fault: JournalFault;

  constructor(fault: JournalFault, options?: ErrorOptions) {
    super(describe(fault), options);
    this.fault = fault;
  }
}

function describe(fault: JournalFault): string {
  switch (fault.kind) {
    case "newer-version":
      return `Cannot read the journal: it has version ${fault.version}, and this forwarder knows up to ${fault.known}; run the later forwarder, or drain the node and remove the file`;
    case "closed":
      return "Cannot write the journal: it is closed, because the forwarder stops";
    case "not-writable":
      return `Cannot write the journal: ${fault.problem}; see to the disk that holds the state folder`;
  }
}
