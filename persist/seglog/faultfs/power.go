package faultfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// sector is the unit that a disk writes whole.
const sector = 512

// PowerCut ends this disk (every later call fails) and returns the one that a machine finds after the power comes back. What was fsynced
// is there. Of the rest any part may be missing, as r decides: creations, renames and removals of files singly, sectors of written data
// singly, and any file length between the old and the new.
func (d *Disk) PowerCut(r *rand.Rand) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	after := New()
	for dir := range d.dirs {
		after.dirs[dir] = true
	}
	maps.Copy(after.names, d.stable)
	keep := r.Float64()
	for _, op := range d.pending {
		if r.Float64() < keep {
			op.apply(after.names)
		}
	}
	names := make([]string, 0, len(after.names))
	for name := range after.names {
		names = append(names, name)
	}
	slices.Sort(names) // the same seed gives the same disk
	copies := map[*inode]*inode{}
	for _, name := range names {
		ino := after.names[name]
		if copies[ino] == nil {
			copies[ino] = ino.afterCut(r)
			copies[ino].name = name
		}
		after.names[name] = copies[ino]
		after.stable[name] = copies[ino]
	}
	return after
}

func (i *inode) afterCut(r *rand.Rand) *inode {
	size := len(i.stable)
	if grown := len(i.data) - size; grown != 0 {
		switch r.IntN(3) {
		case 0:
			size = len(i.data)
		case 1:
			size += grown * r.IntN(100) / 100
		}
	}
	data := make([]byte, size)
	copy(data, i.stable)
	keep := r.Float64()
	for off := 0; off < size; off += sector {
		if off < len(i.data) && r.Float64() < keep {
			copy(data[off:min(off+sector, size)], i.data[off:])
		}
	}
	return &inode{data: data, stable: append([]byte(nil), data...)}
}
