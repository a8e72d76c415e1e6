package kafka

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// The file kafka.state, little endian:
//
//	header, 4096 bytes: | magic "GKST" | version u32 | id 8 | crc32c u32 of what is before | zeros |
//	8 slots of 128 KiB: | length u32 | crc32c u32 of the plan | plan |
//
// The plan of round g lies in slot g mod 8. At most five rounds are under way,
// so a slot is written again only when its old round is settled, and the file
// never grows. A slot that was torn by a crash belongs to a round of which no
// byte had been sent.
const (
	journalName    = "kafka.state"
	journalMagic   = "GKST"
	journalVersion = 1
	headerBytes    = 4096
	slotCount      = 8
	slotBytes      = 128 << 10
	idBytes        = 8 // in every record's gw-msg-id: short, and still never made twice
	journalBytes   = headerBytes + slotCount*slotBytes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// journal remembers which rounds may have been sent and with which numbers. It
// is for one goroutine.
type journal struct {
	f    *os.File
	id   string // hexadecimal, made with the file: names the records of this queue
	gen  uint64 // of the newest plan
	buf  []byte
	live []plan // what openJournal found: rounds that may be under way, oldest first
	gap  bool   // openJournal found the newest plan but not all that belong to it
}

// openJournal opens or makes the journal in dir. A file that cannot be read as
// one is set aside and a new one made; gap is true then.
func openJournal(dir string) (*journal, error) {
	path := filepath.Join(dir, journalName)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return createJournal(path)
	}
	if err != nil {
		return nil, err
	}
	j := &journal{f: f}
	switch err := j.load(); {
	case err == nil:
		return j, nil
	case !errors.Is(err, errNotJournal):
		return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), f.Close())
	}
	aside := fmt.Sprintf("%s.bad-%d", path, time.Now().UnixNano())
	if err := errors.Join(f.Close(), os.Rename(path, aside)); err != nil {
		return nil, err
	}
	if j, err = createJournal(path); err == nil {
		j.gap = true
	}
	return j, err
}

func createJournal(path string) (*journal, error) {
	id := make([]byte, idBytes)
	rand.Read(id) // never fails
	content := make([]byte, journalBytes)
	copy(content, journalMagic)
	binary.LittleEndian.PutUint32(content[4:], journalVersion)
	copy(content[8:], id)
	sealHeader(content)

	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return nil, err
	}
	if _, err = f.WriteAt(content, 0); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make %s: %w", path, err), f.Close())
	}
	return &journal{f: f, id: hex.EncodeToString(id)}, nil
}

// headerFields is the length of the header up to its checksum.
const headerFields = len(journalMagic) + 4 + idBytes

func sealHeader(content []byte) {
	binary.LittleEndian.PutUint32(content[headerFields:], crc32.Checksum(content[:headerFields], castagnoli))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

var errNotJournal = errors.New("not a journal")

func (j *journal) load() error {
	content := make([]byte, journalBytes)
	n, err := j.f.ReadAt(content, 0)
	if n < journalBytes {
		if err != nil && n == 0 {
			return errNotJournal
		}
		content = content[:n]
	}
	if len(content) < headerBytes || string(content[:4]) != journalMagic ||
		crc32.Checksum(content[:headerFields], castagnoli) != binary.LittleEndian.Uint32(content[headerFields:]) {
		return errNotJournal
	}
	if v := binary.LittleEndian.Uint32(content[4:]); v != journalVersion {
		return fmt.Errorf("version %d is newer than this program", v)
	}
	j.id = hex.EncodeToString(content[8:headerFields])
	var plans []plan
	for slot := content[headerBytes:]; len(slot) >= slotBytes; slot = slot[slotBytes:] {
		if p, ok := readSlot(slot[:slotBytes]); ok {
			plans = append(plans, p)
		}
	}
	j.live, j.gen, j.gap = liveRounds(plans)
	return nil
}

func readSlot(slot []byte) (plan, bool) {
	length := binary.LittleEndian.Uint32(slot)
	if length == 0 || length > slotBytes-8 {
		return plan{}, false
	}
	body := slot[8 : 8+length]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(slot[4:]) {
		return plan{}, false
	}
	var p plan
	if err := p.decode(body); err != nil {
		return plan{}, false
	}
	return p, true
}

// liveRounds picks from the plans of all slots those that were under way when
// the newest was written.
func liveRounds(plans []plan) (live []plan, newest uint64, gap bool) {
	byGen := map[uint64]plan{}
	for _, p := range plans {
		byGen[p.gen] = p
		newest = max(newest, p.gen)
	}
	if newest == 0 {
		return nil, 0, false
	}
	for gen := byGen[newest].oldest; gen <= newest; gen++ {
		p, ok := byGen[gen]
		if !ok {
			return nil, newest, true
		}
		live = append(live, p)
	}
	return live, newest, false
}

// write makes the plan durable as the next generation. Oldest is the generation
// of the oldest round that is under way, 0 for the plan itself.
func (j *journal) write(p *plan, oldest uint64) error {
	p.gen, p.at = j.gen+1, time.Now().Unix()
	p.oldest = oldest
	if oldest == 0 {
		p.oldest = p.gen
	}
	if err := j.store(p); err != nil {
		return err
	}
	j.gen = p.gen
	return nil
}

// store writes the plan into its slot.
func (j *journal) store(p *plan) error {
	j.buf = append(j.buf[:0], make([]byte, 8)...)
	j.buf = p.append(j.buf)
	if len(j.buf) > slotBytes {
		return fmt.Errorf("BUG: a plan of %d bytes does not fit into its slot", len(j.buf))
	}
	binary.LittleEndian.PutUint32(j.buf, uint32(len(j.buf)-8))
	binary.LittleEndian.PutUint32(j.buf[4:], crc32.Checksum(j.buf[8:], castagnoli))
	if _, err := j.f.WriteAt(j.buf, headerBytes+int64(p.gen%slotCount)*slotBytes); err != nil {
		return fmt.Errorf("write %s: %w", journalName, err)
	}
	if err := datasync(j.f); err != nil {
		return fmt.Errorf("sync %s: %w", journalName, err)
	}
	return nil
}

func (j *journal) close() error { return j.f.Close() }
