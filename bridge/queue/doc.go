// Package queue is a first-in first-out queue on local disk with a hard cap in bytes, a stated policy for when it is full, pins for records
// in flight and a dead-letter file. It stands on persist/seglog and knows bytes, not messages.
//
// What it guarantees:
//   - A record whose Append was reported without error is on disk as the sync policy says.
//   - Only Confirm, or a loss that is counted with its reason, frees disk.
//   - The folder, dead letters aside, never takes more than Config.MaxBytes.
//   - Records are read in the order in which they were appended.
//   - Records that were handed to the Reader or pinned are never dropped by a policy.
//
// One receiver reads a queue. After a crash it sees again what it had not confirmed, or had confirmed within the last 100 ms.
package queue
