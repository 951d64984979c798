package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"ddtb/db"
)

// watchInterval is how often the file is checked. A change is reported when the file has stayed the same for one
// interval, because an editor's save is several steps.
const watchInterval = 100 * time.Millisecond

// Watch calls onChange each time that the content of the file at path has changed since known, a Config's FileState, or
// since the last call, until ctx ends. That a file can't be read any more, or can be read again, is a change. A removed file
// counts as changed when it exists again.
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
		content, _, err := db.ReadFile(path, maxFile)
		now := identity(content, err)
		if now == last && now != known && now != "" {
			known = now
			onChange()
		}
		last = now
	}
}

// identity returns a hash of what was read of the file, or why it could not; "": there is no file.
func identity(content []byte, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ""
	case err != nil:
		return err.Error()
	}
	sum := sha256.Sum256(content)
	return string(sum[:])
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
