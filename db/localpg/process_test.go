package localpg

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
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
	found := func() (byPS, byProc []int) {
		byPS, byProc = listedByPS(s.folder.data()), s.Processes()
		slices.Sort(byPS[min(1, len(byPS)):])
		return byPS, byProc
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) { // processes come and go
		byPS, byProc := found()
		if slices.Equal(byPS, byProc) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("ps finds %v, /proc %v", byPS, byProc)
		}
	}
}
