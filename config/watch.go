package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A change is reported when the file has been quiet for this long, because an editor's save is several events. It is
// reported after maxQuiet even if there are still events of the file or its directory.
const (
	quiet    = 100 * time.Millisecond
	maxQuiet = time.Second
)

// Watcher watches one file.
//
// It detects an editor's rename, a write in place (also through a bind mount), a file that is removed and written
// again, and retargeted symbolic links, as in Kubernetes. A removed file counts as a change only when it exists again.
// Changes on file systems without notifications, such as NFS, are not detected.
type Watcher struct {
	path      string
	notify    *fsnotify.Watcher
	directory string // the directory of path's link target
	content   [sha256.Size]byte
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

// Watch starts watching the file at path. No change after its return is missed. The caller must call Run. The error says
// that the file's directory can't be watched: it does not exist, or the system's watches are used up.
func Watch(path string) (*Watcher, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("can't watch %s for changes: %w", path, err)
	}
	w := &Watcher{path: path, notify: notify}
	if err := notify.Add(filepath.Dir(path)); err != nil {
		return nil, errors.Join(fmt.Errorf("can't watch the directory of %s for changes: %w", path, err), notify.Close())
	}
	w.follow()
	w.changed()
	return w, nil
}

// Run calls onChange, never concurrently, each time that the file's content has changed, until ctx ends. Then it waits
// for its goroutines, and returns nil.
func (w *Watcher) Run(ctx context.Context, onChange func()) error {
	events, drained := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(drained)
		w.drain(events)
	}()
	debounce(ctx, events, func() {
		w.follow()
		if w.changed() {
			onChange()
		}
	})
	err := w.notify.Close()
	<-drained
	return err
}

// drain keeps reading, because fsnotify may hold its lock until its event is read, and follow needs that lock. An error
// means too many events, and counts as an event.
func (w *Watcher) drain(events chan<- struct{}) {
	for open := true; open; {
		select {
		case _, open = <-w.notify.Events:
		case _, open = <-w.notify.Errors:
		}
		select {
		case events <- struct{}{}:
		default: // one is already pending
		}
	}
}

// follow watches the file itself, for writes through other names, and the directory of its link target. Both may have
// changed. A missing file is no error: the directories report when it exists.
func (w *Watcher) follow() {
	_ = w.notify.Add(filepath.Dir(w.path))
	_ = w.notify.Remove(w.path) // otherwise Add may keep watching the file that had the name before
	_ = w.notify.Add(w.path)
	target, err := filepath.EvalSymlinks(w.path)
	if err != nil {
		return
	}
	if directory := filepath.Dir(target); directory != w.directory {
		if w.directory != "" && w.directory != filepath.Dir(w.path) {
			_ = w.notify.Remove(w.directory)
		}
		w.directory = directory
	}
	_ = w.notify.Add(w.directory)
}

// changed reports whether the content differs from the last time. A file that exists but can't be read counts as
// changed, so that the error is reported.
func (w *Watcher) changed() bool {
	content, _, err := readFile(w.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		content = []byte(err.Error())
	}
	before := w.content
	w.content = sha256.Sum256(content)
	return w.content != before
}

// debounce calls settled when events have stopped for quiet, or have continued for maxQuiet, until ctx is done.
func debounce(ctx context.Context, events <-chan struct{}, settled func()) {
	timer := time.NewTimer(quiet)
	timer.Stop()
	defer timer.Stop()
	var deadline time.Time // of the events since settled; zero without events
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			if deadline.IsZero() {
				deadline = time.Now().Add(maxQuiet)
			}
			timer.Reset(min(quiet, time.Until(deadline)))
		case <-timer.C:
			deadline = time.Time{}
			settled()
		}
	}
}
