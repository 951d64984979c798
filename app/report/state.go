package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// state is the ledger, shared by the processes of one host through a file, or kept in this one's memory when
// there is no folder for it.
type state struct {
	file   string // "": not shared
	ledger ledger
	unread bool // the file is behind the ledger: the last save failed
}

const (
	stateName = "report.json"
	lockWait  = 250 * time.Millisecond // others hold the lock for about a millisecond
	lockPoll  = 5 * time.Millisecond
)

func newState(dir string) *state {
	s := &state{ledger: ledger{Marks: map[string]*mark{}}}
	if dir != "" {
		s.file = filepath.Join(dir, stateName)
	}
	return s
}

// update changes the ledger while no other process can. When the file can't be had, the ledger is changed in
// memory all the same, and the error tells why it is not shared.
func (s *state) update(change func(*ledger)) error {
	if s.file == "" {
		change(&s.ledger)
		return nil
	}
	unlock, lockErr := s.lock()
	defer unlock()
	var readErr error
	if lockErr == nil && !s.unread {
		readErr = s.load()
	}
	change(&s.ledger)
	saveErr := lockErr
	if lockErr == nil {
		saveErr = s.save()
	}
	s.unread = saveErr != nil
	return errors.Join(readErr, saveErr)
}

// lock takes the lock of all processes. It is on a file of its own, since the state file is replaced by each save.
func (s *state) lock() (unlock func(), err error) {
	nothing := func() {}
	if err := os.MkdirAll(filepath.Dir(s.file), 0o700); err != nil {
		return nothing, fmt.Errorf("can't make the folder of the state file: %w", err)
	}
	f, err := os.OpenFile(s.file+".lock", os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nothing, fmt.Errorf("can't lock the state file: %w", err)
	}
	unlock = func() { _ = f.Close() }                                  // which ends the lock
	for deadline := time.Now().Add(lockWait); ; time.Sleep(lockPoll) { //nolint:forbidigo // flock has no wait with a bound
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return unlock, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) || time.Now().After(deadline) {
			return unlock, fmt.Errorf("can't lock the state file %s: %w", s.file, err)
		}
	}
}

// load reads what the others did. A file that can't be used is as good as none: this process goes on with what
// it knows itself, and the next save repairs the file.
func (s *state) load() error {
	data, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("can't read the state file: %w", err)
	}
	var read ledger
	if err := json.Unmarshal(data, &read); err != nil {
		return fmt.Errorf("the state file %s is damaged, it is written anew: %w", s.file, err)
	}
	s.ledger = read.sound()
	return nil
}

// sound bounds what a file may hold, and fills in what it may lack.
func (l ledger) sound() ledger {
	marks := make(map[string]*mark, len(l.Marks))
	for _, m := range l.Marks {
		if m != nil && m.Untold >= 0 && len(marks) <= maxKinds {
			marks[m.key()] = m
		}
	}
	l.Marks = marks
	slices.SortFunc(l.Told, time.Time.Compare)
	if l.Outage != nil && l.Outage.Failed == nil {
		l.Outage.Failed = map[string]int{}
	}
	return l
}

// save replaces the file in one step, so that nobody ever reads half of it.
func (s *state) save() error {
	data, err := json.Marshal(s.ledger)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(s.file), stateName+".*") // 0600
	if err != nil {
		return fmt.Errorf("can't write the state file: %w", err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("can't write the state file: %w", err)
	}
	return nil
}
