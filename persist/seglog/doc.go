// Package seglog is a crash-safe segmented record log with group commit. It is the only code that writes message data to disk.
//
// What it guarantees:
//   - A record whose Append was reported without error is on stable storage (SyncAlways) and is read back after kill -9, a power cut,
//     a torn tail, a flipped bit elsewhere in the file or a full disk.
//   - A record that is read back is exactly a record that was appended: its CRC is seeded with a random salt of its segment.
//   - A sequence number never names two different records for a reader, not even across a crash or a failed write.
//   - Open refuses only what it cannot judge (a newer format, a folder locked by another process, an I/O error of the folder itself).
//     Damaged data is stepped over, counted and kept in the quarantine folder.
//   - Records are deleted only when the owner moved the cursor past them or dropped their segment explicitly.
//
// What it leaves to others: caps and policies (bridge/queue), the meaning of the bytes, compaction.
//
// DESIGN.md draws the layout and gives the reason for each rule.
package seglog
