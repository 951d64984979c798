package config

import (
	"context"
	"fmt"
	"os"
	"time"
)

// watchInterval is how often the file is checked. A change is reported when the file has stayed the same for one
// interval, because an editor's save is several steps.
const watchInterval = 100 * time.Millisecond

// Watch calls onChange each time that the file at path differs from known, its Version at first and then that of the
// last call, until ctx ends. A removed file counts as changed when it exists again.
//
// It polls, which takes microseconds. Notifications would be lost for files on a network file system and for some mounts
// of containers, and would have to follow links and replaced files.
func Watch(ctx context.Context, path, known string, onChange func()) {
	last := known
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := Version(path)
		if now == last && now != known && now != "" {
			known = now
			onChange()
		}
		last = now
	}
}

// Version returns a text that identifies the file at path and its state, as a web server's ETag does: its time and size. It
// is the same for every process that reads the file, under any name, and does not disclose the name. It is "" if the file
// can't be read.
func Version(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%x-%x", info.ModTime().UnixNano(), info.Size())
}
