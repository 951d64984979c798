package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A change is reported when the file has been quiet for this long, since an editor's save is several events; and
// after maxQuiet even if it, or another file of its folder, never gets quiet.
const (
	quiet    = 100 * time.Millisecond
	maxQuiet = time.Second
)

// BeginWatch begins to watch the file at path. From its return on, no change is missed. The caller must call run, which
// calls onChange, never twice at once, each time that the content of the file has changed, until ctx ends; then it waits
// for all that was started, and returns nil.
//
// It sees an editor's rename, a write in place (through a bind mount too), a file that is removed and written again, and
// symbolic links that are pointed elsewhere, as Kubernetes does. A removed file is no change until it is there again.
// It does not see changes on file systems that report none, such as NFS.
//
// The error says that the directory of the file can't be watched: there is none, or the system's watches are used up.
func BeginWatch(path string) (run func(ctx context.Context, onChange func()) error, err error) {
	w, err := watch(path)
	if err != nil {
		return nil, err
	}
	return w.run, nil
}

// watcher watches one file.
type watcher struct {
	path    string
	notify  *fsnotify.Watcher
	folder  string // of the file that path links to
	content fingerprint
}

type fingerprint [sha256.Size]byte

// watch begins: what happens to the file from here on, run will tell.
func watch(path string) (*watcher, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("can't watch %s for changes: %w", path, err)
	}
	w := &watcher{path: path, notify: notify}
	if err := notify.Add(filepath.Dir(path)); err != nil {
		return nil, errors.Join(fmt.Errorf("can't watch the folder of %s for changes: %w", path, err), notify.Close())
	}
	w.follow()
	w.changed()
	return w, nil
}

func (w *watcher) run(ctx context.Context, onChange func()) error {
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

// drain keeps reading, since fsnotify may hold its lock until its event is read, and follow needs that lock. An
// error, of too many events, is an event.
func (w *watcher) drain(events chan<- struct{}) {
	for open := true; open; {
		select {
		case _, open = <-w.notify.Events:
		case _, open = <-w.notify.Errors:
		}
		select {
		case events <- struct{}{}:
		default: // one is waiting already
		}
	}
}

// follow watches the file itself, for writes that come by another name of it, and the folder to which it links.
// Both may be others than a moment ago. That there is no file now is no error: the folders will tell when there is.
func (w *watcher) follow() {
	_ = w.notify.Add(filepath.Dir(w.path))
	_ = w.notify.Remove(w.path) // else Add may keep to the file that had the name before
	_ = w.notify.Add(w.path)
	target, err := filepath.EvalSymlinks(w.path)
	if err != nil {
		return
	}
	if folder := filepath.Dir(target); folder != w.folder {
		if w.folder != "" && w.folder != filepath.Dir(w.path) {
			_ = w.notify.Remove(w.folder)
		}
		w.folder = folder
	}
	_ = w.notify.Add(w.folder)
}

// changed reports whether the content is another one than the last time. A file that can't be read, for another
// reason than that there is none, counts as a content: somebody should hear why.
func (w *watcher) changed() bool {
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

// debounce calls settled when events have stopped for quiet, or have gone on for maxQuiet, until ctx is done.
func debounce(ctx context.Context, events <-chan struct{}, settled func()) {
	timer := time.NewTimer(quiet)
	timer.Stop()
	defer timer.Stop()
	var deadline time.Time // of the events since settled; zero when there was none
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
