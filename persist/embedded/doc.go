// Package embedded is the default broker.Store: the gateway's durable state in one folder on local disk, without another process.
//
// Every batch is one record of a segment log (persist/seglog), so it is on disk completely or not at all, and batches that arrive together
// share one fsync. What lives is indexed in memory: sessions, subscriptions, retained topics and inbound identifiers by key, queue
// entries by 40 bytes each with the place of their message in the log. A cleaner copies what still lives out of the oldest segment to
// the end of the log and gives the segment up; there is no snapshot and no second file.
//
// It guarantees what broker.Store says, with a prefix of the batches after a crash, and that a damaged record costs no more than what was
// in it. It leaves to others: caps per session, expiry, the meaning of the state.
//
// docs/adr/0003-embedded-store.md gives the reasons and the argument why nothing deleted comes back.
package embedded
