package coap

// maxBlockExponent is SZX of the largest block, 1,024 bytes. 7 is reserved on
// UDP (RFC 7959 section 2.2).
const (
	maxBlockExponent = 6
	maxBlockSize     = 16 << maxBlockExponent
	maxBlockNumber   = 1<<20 - 1
)

// block is the value of a Block1 or Block2 option.
//
//	 0 1 2 3 4 5 6 7 ...
//	+---------------+-+-----+
//	|      NUM      |M| SZX |   0 to 3 bytes
//	+---------------+-+-----+
type block struct {
	present bool
	num     uint32
	more    bool
	szx     uint8
}

func parseBlock(b []byte) block {
	v := uintOption(b)
	return block{present: true, num: v >> 4, more: v&8 != 0, szx: uint8(v & 7)}
}

func (b block) value() uint32 {
	v := b.num<<4 | uint32(b.szx)
	if b.more {
		v |= 8
	}
	return v
}

func (b block) size() int   { return 16 << b.szx }
func (b block) offset() int { return int(b.num) << (b.szx + 4) }
