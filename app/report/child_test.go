package report

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestProcessesOfOneHostShareTheLimit(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			out, err := exec.CommandContext(t.Context(), os.Args[0], "-child="+dir).CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	mails, err := filepath.Glob(filepath.Join(dir, "mails", "*.eml"))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "mails of four processes", len(mails), 1)
	s := newState(dir)
	if err := s.load(); err != nil {
		t.Fatal(err)
	}
	equal(t, "failures of four processes not told yet", s.ledger.Marks[firstKey(s.ledger)].Untold, 199)
	equal(t, "failures in the outage", s.ledger.Outage.total(), 200)
}

// beChild is one of four processes, each with 50 failing requests.
func beChild(dir string) error {
	m := mailTo("file")
	m.Dir = filepath.Join(dir, "mails")
	r, err := New(Options{Mail: m, StateDir: dir, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	concurrently(50, func(int) { r.Report(busy("/polls/")) })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return r.Close(ctx)
}
