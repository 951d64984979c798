package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// stateFile keeps the state across restarts. A disk that hangs delays the reports once, by fileWait. Then the file is
// not used until the disk works again. It logs when the file stops working, and when it works again.
type stateFile struct {
	path string // "": no file
	log  *slog.Logger
	turn chan struct{} // held while the file is read or written, which may never end
	ok   bool          // the last attempt succeeded
}

const (
	stateName = "report.json"
	maxState  = 4 << 20 // bytes; maxGroups and their mails of an hour need less
	fileWait  = 500 * time.Millisecond
)

func newStateFile(dir string, log *slog.Logger) *stateFile {
	f := &stateFile{log: log, turn: make(chan struct{}, 1)}
	if dir != "" {
		f.path, f.ok = filepath.Join(dir, stateName), true
	}
	return f
}

// load returns the state of an earlier process. An unusable file counts as none.
func (f *stateFile) load(now time.Time) *state {
	var read state
	if f.path == "" || !f.within(func() error { return readState(f.path, &read) }) { // which may still write to read
		return newState()
	}
	return read.sound(now)
}

// sound returns what is usable of a state from a file. A clock that was set back suppresses nothing: what happened in
// the future is forgotten.
func (s *state) sound(now time.Time) *state {
	future := func(t time.Time) bool { return t.After(now) }
	out := state{Groups: map[string]*group{}, Sent: slices.DeleteFunc(s.Sent, future)}
	for key, g := range s.Groups {
		if g != nil && g.Pending >= 0 && !slices.ContainsFunc([]time.Time{g.Reported, g.Last, g.Served}, future) {
			out.Groups[key] = g
		}
	}
	return &out
}

func readState(path string, into *state) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Size() > maxState: // opening a FIFO would wait for its other end
		return fmt.Errorf("%s is no state file: it is no regular file, or larger than %d bytes", path, maxState)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	return nil
}

// save replaces the file atomically. It reports whether that succeeded.
func (f *stateFile) save(s *state) (ok bool) {
	if f.path == "" {
		return true
	}
	data, _ := json.Marshal(s) // none of its types can fail
	return f.within(func() error { return replaceFile(f.path, data) })
}

// replaceFile always uses the same temporary name: a process that is repeatedly killed here leaves only one file.
func replaceFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	part := path + ".new"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // never through another's link
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// within runs do, and waits for it for at most fileWait. It reports whether it succeeded.
func (f *stateFile) within(do func() error) (ok bool) {
	done := make(chan error, 1)
	select {
	case f.turn <- struct{}{}:
		go func() {
			err := do()
			<-f.turn
			done <- err
		}()
	default:
		done <- fmt.Errorf("%s: the disk does not answer", f.path)
	}
	var err error
	select {
	case err = <-done:
	case <-time.After(fileWait):
		err = fmt.Errorf("%s: the disk did not answer within %v", f.path, fileWait)
	}
	switch {
	case err != nil && f.ok:
		f.log.WarnContext(context.Background(), "the state file of the mails can't be used: a restart may send a mail again", "error", err)
	case err == nil && !f.ok:
		f.log.InfoContext(context.Background(), "the state file of the mails can be used again")
	}
	f.ok = err == nil
	return f.ok
}
