package db_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"ddtb/db"
	"ddtb/db/dbtest"
)

// TestAServerThatCanNotForkSaysSo limits the processes of the server's account.
func TestAServerThatCanNotForkSaysSo(t *testing.T) {
	s := dbtest.NewServer(t, dbtest.Options{})
	cfg := s.Config(t)
	backend := scan[int](t, s.Control(t, "postgres"), "SELECT pg_backend_pid()")
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", backend))
	must(t, err)
	_, parent, _ := strings.Cut(string(status), "PPid:\t")
	parent, _, _ = strings.Cut(parent, "\n")
	info, err := os.Stat("/proc/" + parent)
	must(t, err)
	owner := info.Sys().(*syscall.Stat_t)
	limit := exec.CommandContext(t.Context(), "prlimit", "--pid", parent, "--nproc=1:")
	if os.Getuid() == 0 { // root has no such limit, and may lack the right to set it
		limit.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	if out, err := limit.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, err = db.Connect(t.Context(), connConfig(t, cfg))
	ce, ok := errors.AsType[*db.ConnError](err)
	if !ok || !strings.Contains(ce.Cause.Spec().Sentence(ce), "can't start a process") || !ce.Cause.Passes() || !strings.Contains(err.Error(), "could not fork") {
		t.Errorf("%v", err)
	}
	if hint := db.Hint(err); !strings.Contains(hint, "limit on processes") {
		t.Errorf("the hint is %q", hint)
	}
}
