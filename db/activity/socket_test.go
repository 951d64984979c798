package activity

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestARunningServerLendsItsConnectionWhenNoSlotIsLeft(t *testing.T) {
	onEach(t, func(t *testing.T, s *server) {
		cc, err := connConfig(s.config(app, "wall"))
		must(t, err)
		dir := shortTempDir(t)
		if _, err := FindShared(t.Context(), []string{dir}, cc); !errors.Is(err, ErrNotShared) {
			t.Errorf("with no server: %v", err)
		}
		stale := socketPrefix(dir, cc) + "1.sock"
		leaveSocket(t, stale)
		o := s.observer(t, app)
		snapshot(t, o)
		lending, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- o.Share(lending, dir) }()
		var r *Remote
		eventually(t, "it lends", func() bool {
			var err error
			r, err = FindShared(t.Context(), []string{dir}, cc)
			return err == nil
		})
		if _, err := os.Stat(stale); err == nil {
			t.Error("the socket of a killed server is still there")
		}
		exec(t, s.session(t, app, "wall", "shop/pool"), "SELECT 1")
		s.fill(t, other, "crowd")
		if now := snapshot(t, r); now.Slots.Free() != 0 || now.Through == "" || now.AccessPath() == "an ordinary slot" {
			t.Errorf("%+v through %q", now.Slots, now.Through)
		}
		f := Filter{Application: "shop"}
		got, err := End(t.Context(), r, Plan(snapshot(t, r), f), f)
		must(t, err)
		if got.Count(Closed) != 1 || len(got.Sessions) != 1 {
			t.Errorf("%+v", got)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 0 {
			t.Errorf("left over: %v", left)
		}
	})
}

// shortTempDir has no test's name in its path: a socket's may have 107 characters.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lend")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// leaveSocket leaves a socket on which no server answers, as a killed server does.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	l.SetUnlinkOnClose(false)
	must(t, l.Close())
}

func TestTheSocketsFolderIsTheUsersAlone(t *testing.T) {
	runtime := t.TempDir()
	dir, err := SocketDir(runtime)
	must(t, err)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	must(t, os.Chmod(dir, 0o755))
	if _, err := SocketDir(runtime); err == nil {
		t.Error("a directory that others can enter was taken")
	}
	must(t, os.Remove(dir))
	must(t, os.Symlink(t.TempDir(), dir))
	if _, err := SocketDir(runtime); err == nil {
		t.Error("a link was taken")
	}
}
