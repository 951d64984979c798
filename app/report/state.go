package report

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// stateFile keeps the state across restarts. A disk that hangs delays the aggregator once, by fileWait. Then the file
// is not used until the disk works again.
type stateFile struct {
	path string        // "": no file
	turn chan struct{} // held while the file is read or written, which may never end
	ok   bool          // the last attempt succeeded
}

const (
	stateName = "report.json"
	maxState  = 4 << 20 // bytes; maxGroups and their mails of an hour need less
	fileWait  = 500 * time.Millisecond
)

func newStateFile(dir string) *stateFile {
	f := &stateFile{turn: make(chan struct{}, 1), ok: true}
	if dir != "" {
		f.path = filepath.Join(dir, stateName)
	}
	return f
}

// within runs do, and waits for it for at most fileWait.
func (f *stateFile) within(do func() error) error {
	select {
	case f.turn <- struct{}{}:
	default:
		return fmt.Errorf("%s: the disk does not answer", f.path)
	}
	done := make(chan error, 1)
	go func() {
		err := do()
		<-f.turn
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(fileWait):
		return fmt.Errorf("%s: the disk did not answer within %v", f.path, fileWait)
	}
}

// load reads the state of an earlier process. An unusable file counts as none.
func (f *stateFile) load(now time.Time) (s *state, err error) {
	if f.path == "" {
		return newState(), nil
	}
	var read state
	err = f.within(func() error { return readState(f.path, &read) })
	if err != nil {
		return newState(), err
	}
	return read.sound(now), nil
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

// save replaces the file atomically.
func (f *stateFile) save(s *state) error {
	if f.path == "" {
		return nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
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

// complain logs when the state file stops working, and when it works again.
func (r *Reporter) complain(err error) {
	switch {
	case err != nil && r.file.ok:
		r.o.Log.WarnContext(context.Background(), "the state file of the mails can't be used: a restart may send a mail again", "error", err)
	case err == nil && !r.file.ok:
		r.o.Log.InfoContext(context.Background(), "the state file of the mails can be used again")
	}
	r.file.ok = err == nil
}
