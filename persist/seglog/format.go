package seglog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"strconv"
	"strings"
	"time"
)

// Segment header, 32 bytes, little endian:
//
//	0        4      6      8              16        20         24       28       32
//	| magic  | ver  | flags| base         | salt    | created  | gap    | crc    |
//
// created is in Unix seconds. Sequence numbers in [base-gap, base) name no record: their appends were reported as failed, or were
// skipped on open. crc is CRC-32C of the 28 bytes before it.
//
// Record, aligned to 8 bytes:
//
//	0        4        8        12       16                    padded with zeros to 8
//	| hcrc   | len    | rel    | crc    | payload (len bytes) ... |
//
// rel is the sequence number minus the segment's base. hcrc is CRC-32C over bytes 4..16, crc over the payload, both seeded with the
// segment's salt. The header has its own CRC so that resync needs no more than one pass: a false header costs no payload read.
const (
	segmentMagic  = 0x474c5347 // "GSLG"
	formatVersion = 1
	flagUnsynced  = 1 << 0 // written with SyncInterval or SyncNever: readers may have seen records that a power cut took back

	segmentHeader = 32
	recordHeader  = 16
	alignment     = 8
	minFrame      = recordHeader + alignment
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// FrameSize returns the bytes that a payload of n bytes takes in a segment.
func FrameSize(n int) int64 {
	return int64(recordHeader+n+alignment-1) &^ (alignment - 1)
}

// HeaderSize is what each segment takes beside its records.
const HeaderSize = segmentHeader

// Pos is where a record lies. Positions stay valid until the segment is deleted, also across restarts.
type Pos struct {
	Segment uint64 // base sequence number of the segment
	Offset  int64  // byte offset of the record in it
}

// Add returns the position of the record that follows, in the same Append, a record with a payload of n bytes.
func (p Pos) Add(n int) Pos {
	p.Offset += FrameSize(n)
	return p
}

type header struct {
	version uint16
	flags   uint16
	base    uint64
	salt    uint32
	created uint32
	gap     uint32
}

func (h header) encode() []byte {
	b := make([]byte, 0, segmentHeader)
	b = binary.LittleEndian.AppendUint32(b, segmentMagic)
	b = binary.LittleEndian.AppendUint16(b, h.version)
	b = binary.LittleEndian.AppendUint16(b, h.flags)
	b = binary.LittleEndian.AppendUint64(b, h.base)
	b = binary.LittleEndian.AppendUint32(b, h.salt)
	b = binary.LittleEndian.AppendUint32(b, h.created)
	b = binary.LittleEndian.AppendUint32(b, h.gap)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeHeader reports false for anything that is not an undamaged segment header; the version is for the caller to judge.
func decodeHeader(b []byte) (header, bool) {
	if len(b) < segmentHeader || binary.LittleEndian.Uint32(b) != segmentMagic {
		return header{}, false
	}
	if crc32.Checksum(b[:28], castagnoli) != binary.LittleEndian.Uint32(b[28:]) {
		return header{}, false
	}
	return header{
		version: binary.LittleEndian.Uint16(b[4:]),
		flags:   binary.LittleEndian.Uint16(b[6:]),
		base:    binary.LittleEndian.Uint64(b[8:]),
		salt:    binary.LittleEndian.Uint32(b[16:]),
		created: binary.LittleEndian.Uint32(b[20:]),
		gap:     binary.LittleEndian.Uint32(b[24:]),
	}, true
}

func (h header) createdAt() time.Time { return time.Unix(int64(h.created), 0) }

// appendFrame opens a record of n payload bytes in buf; the caller appends the payload and then calls padFrame.
func appendFrame(buf []byte, n int) []byte {
	buf = binary.LittleEndian.AppendUint32(buf, 0)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(n))
	return binary.LittleEndian.AppendUint64(buf, 0)
}

func padFrame(buf []byte) []byte {
	for len(buf)%alignment != 0 {
		buf = append(buf, 0)
	}
	return buf
}

// sealFrame fills the header of the record at the start of b and returns its frame size. The salt belongs to the segment, which is
// known only when the group is written.
func sealFrame(b []byte, salt, rel uint32) int {
	n := int(binary.LittleEndian.Uint32(b[4:]))
	binary.LittleEndian.PutUint32(b[8:], rel)
	binary.LittleEndian.PutUint32(b[12:], crc32.Update(salt, castagnoli, b[recordHeader:recordHeader+n]))
	binary.LittleEndian.PutUint32(b[0:], crc32.Update(salt, castagnoli, b[4:recordHeader]))
	return int(FrameSize(n))
}

// decodeFrame reads a record header and reports whether its own CRC holds.
func decodeFrame(b []byte, salt uint32) (n int64, rel, crc uint32, ok bool) {
	if crc32.Update(salt, castagnoli, b[4:recordHeader]) != binary.LittleEndian.Uint32(b) {
		return 0, 0, 0, false
	}
	n = int64(binary.LittleEndian.Uint32(b[4:]))
	return n, binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:]), n > 0
}

func payloadValid(p []byte, salt, crc uint32) bool {
	return crc32.Update(salt, castagnoli, p) == crc
}

// tempSuffix marks a segment file that is just being made; it holds at most a header.
const tempSuffix = ".tmp"

// Segment file names are base-salt.seg, or base-salt-end.seg once a later neighbour was dropped and the end can no longer be told from
// the next file. They repeat base and salt so that a damaged header costs 32 bytes and not the segment.
func segmentName(base uint64, salt uint32) string {
	return fmt.Sprintf("%016x-%08x.seg", base, salt)
}

func endedName(base uint64, salt uint32, end uint64) string {
	return fmt.Sprintf("%016x-%08x-%016x.seg", base, salt, end)
}

func parseName(name string) (base uint64, salt uint32, end uint64, ok bool) {
	stem, isSeg := strings.CutSuffix(name, ".seg")
	parts := strings.Split(stem, "-")
	if !isSeg || len(parts) < 2 || len(parts) > 3 {
		return 0, 0, 0, false
	}
	base, err := strconv.ParseUint(parts[0], 16, 64)
	if err != nil {
		return 0, 0, 0, false
	}
	s, err := strconv.ParseUint(parts[1], 16, 32)
	if err != nil {
		return 0, 0, 0, false
	}
	if len(parts) == 3 {
		if end, err = strconv.ParseUint(parts[2], 16, 64); err != nil {
			return 0, 0, 0, false
		}
	}
	return base, uint32(s), end, true
}

func gapOf(base, prevEnd uint64) uint32 {
	if base <= prevEnd {
		return 0
	}
	return uint32(min(base-prevEnd, math.MaxUint32))
}
