// What must outlive the process: the latest value of each key, in one append-only file that survives a crash at any instant,
// a damaged disk as far as it is legible, and a full one. Knows neither connections nor VFs: values are whatever JSON has.
// Start reading at journal.ts; frame.ts is how a record lies on disk, found-records.ts how they are found again.
export { JournalError } from "./error.ts";
export { type Journal, openJournal, type Selection } from "./journal.ts";
