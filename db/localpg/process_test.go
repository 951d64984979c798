//go:build unix

package localpg

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"ddtb/db/localpg/system"
)

func TestPsFindsTheProcessesThatProcFinds(t *testing.T) {
	dir, err := os.MkdirTemp("", "localpg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := Start(t.Context(), Options{Dir: filepath.Join(dir, "postgres"), Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop(context.Background()) })
	if main := s.Processes()[0]; main != s.process.cmd.Process.Pid {
		t.Errorf("the first process is %d, the main one %d", main, s.process.cmd.Process.Pid)
	}
	deadline := time.After(10 * time.Second)
	for { // processes start and end
		byPS, byProc := mainFirst(familyOn(s.directory.data(), listedByPS()), s.directory.data()), s.Processes()
		if slices.Equal(byPS, byProc) {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("ps finds %v, /proc %v", byPS, byProc)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestTheMainProcessIsFirstThoughItsNumberIsNot(t *testing.T) {
	data := t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "postmaster.pid"), []byte("30\n"+data+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := mainFirst([]int{40, 10, 30, 20}, data); !slices.Equal(got, []int{30, 10, 20, 40}) {
		t.Error(got)
	}
}

func TestAFolderIsFreeAlsoWhileAForkedChildStillHasItsFile(t *testing.T) {
	f := &directory{path: t.TempDir()}
	if err := f.takeLock(); err != nil {
		t.Fatal(err)
	}
	child, err := syscall.Dup(int(f.lock.Fd())) // like a fork, until the child's exec
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(child) }()
	f.unlock()
	next := &directory{path: f.path}
	if err := next.takeLock(); err != nil {
		t.Fatal(err)
	}
	next.unlock()
}

func TestALookWhetherAServerRunsHindersNoStart(t *testing.T) {
	f := &directory{path: t.TempDir()}
	look, err := system.OpenLock(filepath.Join(f.path, lockName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = look.Close() }()
	if _, err := system.TryLock(look); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(5*time.Millisecond, func() { system.Unlock(look) })
	if err := f.takeLock(); err != nil {
		t.Fatal(err)
	}
	if !system.Locked(look) {
		t.Error("the lock is not seen")
	}
	f.unlock()
	if system.Locked(look) {
		t.Error("a lock is seen after its end")
	}
}

func TestAServerWhosePortCannotBeNotedIsNotLeftRunning(t *testing.T) {
	acct, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "localpg") // the server's account can't enter testing.T.TempDir
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	f, err := openDirectory(dir, acct)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.lock.Close()
	s, err := start(t.Context(), f, Options{Volatile: true, MaxConnections: 10, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Error("it was noted")
	}
	if left := processesOf(f.data()); len(left) > 0 {
		t.Errorf("these processes are left: %v", left)
		_ = s.process.end(t.Context(), immediate, f.data())
	}
}

func TestEmptyingADirectoryWhosePathLooksLikeAPatternTouchesNoOther(t *testing.T) {
	parent := t.TempDir()
	own, other := filepath.Join(parent, "pg[1]"), filepath.Join(parent, "pg1")
	for _, dir := range []string{own, other} {
		if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := (&directory{path: own}).empty(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(own, "data")); err == nil {
		t.Error("its own data are left")
	}
	if _, err := os.Stat(filepath.Join(other, "data")); err != nil {
		t.Error("another directory was emptied:", err)
	}
}
