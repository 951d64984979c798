package report

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ddtb/db/logtest"
)

func TestAProcessThatRestartsInALoopSendsOneMail(t *testing.T) {
	dir := t.TempDir()
	for range 5 {
		out, err := exec.CommandContext(t.Context(), os.Args[0], "-child="+dir).CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != crashed {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	mails, err := filepath.Glob(filepath.Join(dir, "mails", "*.eml"))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "mails of five processes", len(mails), 1)
	s := stateIn(t, dir)
	if n := s.Groups[outageKey].Pending; n < 4 || n > 249 { // a crash loses the counts of its last second, but for its first failure
		t.Errorf("%d failures of five processes are pending", n)
	}
}

const crashed = 42

// beChild is a process with 50 failing requests, which crashes without a Close when their state is saved.
func beChild(dir string) {
	m := mailTo("file")
	m.Dir = filepath.Join(dir, "mails")
	before, _ := os.Stat(filepath.Join(dir, stateName))
	r, err := New(Options{Mail: m, StateDir: dir, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		panic(err)
	}
	concurrently(50, func(int) { r.Report(busy("/polls/")) })
	tick := time.NewTicker(time.Millisecond)
	for range tick.C {
		now, err := os.Stat(filepath.Join(dir, stateName))
		mails, _ := filepath.Glob(filepath.Join(m.Dir, "*.eml"))
		if err == nil && len(mails) > 0 && (before == nil || !os.SameFile(before, now)) {
			os.Exit(crashed)
		}
	}
}

func stateIn(t *testing.T, dir string) *state {
	t.Helper()
	f := newStateFile(dir, quiet(t))
	s := f.load(time.Now())
	if !f.ok {
		t.Fatal("it can't be read")
	}
	return s
}

func TestWhatAProcessDidNotReportTheNextOneDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		var out console
		first := open(t, Options{Mail: mailTo("console"), Console: &out, StateDir: dir})
		concurrently(50, func(int) { first.Report(busy("/polls/")) })
		shut(t, first)
		next := open(t, Options{Mail: mailTo("console"), Console: &out, StateDir: dir})
		pass(11 * time.Minute)
		equal(t, "mails", strings.Join(out.subjects(), "; "),
			"[ddtb] pool timeout on /polls/ (web1); [ddtb] pool timeout: 49 more (web1)")
		next.Healthy()
		pass(time.Minute)
		contains(t, "the end of an outage that began before the restart", strings.Join(out.subjects()[2:], "; "), "Recovered", "50 requests failed")
	})
}

type unusable struct {
	make func(t *testing.T, path string)
	log  string // "": the file works
}

var unusables = map[string]unusable{
	"absent":        {func(*testing.T, string) {}, ""},
	"empty":         {content(""), "is damaged"},
	"no JSON":       {content("{"), "is damaged"},
	"another shape": {content("[1]"), "is damaged"},
	"null":          {content("null"), ""},
	"null parts":    {content(`{"groups":{"x":null},"sent":null}`), ""},
	"wrong types":   {content(`{"groups":{"x":{"pending":"many"}}}`), "is damaged"},
	"a directory":   {mkdir, "is no regular file"},
	"500 MB":        {huge, "larger than"},
	"a directory that is a file": {func(t *testing.T, path string) {
		if err := os.Remove(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
		content("")(t, filepath.Dir(path))
	}, "not a directory"},
}

func TestAStateFileThatCanNotBeUsedCostsOnlyTheMemoryOfTheLimits(t *testing.T) {
	for name, c := range unusables {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			mkdir(t, dir)
			c.make(t, filepath.Join(dir, stateName))
			var out console
			var log logtest.Log
			before := allocated()
			r := open(t, Options{Mail: mailTo("console"), Console: &out, StateDir: dir, Log: logTo(&log)})
			concurrently(10, func(int) { r.Report(busy("/polls/")) })
			shut(t, r)
			equal(t, "mails", len(out.subjects()), 1)
			if grown := allocated() - before; grown > 20<<20 {
				t.Errorf("%d MB were allocated", grown>>20)
			}
			contains(t, "the log", log.String(), c.log)
			if info, err := os.Lstat(filepath.Join(dir, stateName)); err == nil && info.Mode().IsRegular() {
				equal(t, "pending", stateIn(t, dir).Groups[outageKey].Pending, 9)
				equal(t, "mode", info.Mode().Perm(), fs.FileMode(0o600))
			} else {
				contains(t, "the log", log.String(), "before these failures were due", "count=9")
			}
		})
	}
}

func content(text string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func mkdir(t *testing.T, path string) {
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func huge(t *testing.T, path string) {
	content("{")(t, path)
	if err := os.Truncate(path, 500<<20); err != nil {
		t.Fatal(err)
	}
}

func allocated() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.TotalAlloc)
}

func TestADiskThatHangsDelaysNoMailAndNoStop(t *testing.T) {
	var out console
	var log logtest.Log
	r := open(t, Options{Mail: mailTo("console"), Console: &out, StateDir: t.TempDir(), Log: logTo(&log)})
	r.Report(bug(1))
	eventually(t, "the first mail", func() bool { return len(out.subjects()) == 1 })
	r.file.turn <- struct{}{} // as a write does that never returns
	began := time.Now()
	r.Report(bug(2))
	eventually(t, "the second mail", func() bool { return len(out.subjects()) == 2 })
	shut(t, r)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
	equal(t, "lines about it", strings.Count(log.String(), "the disk does not answer"), 1)
}

func TestAReadThatNeverReturnsIsWaitedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logtest.Log
		f := newStateFile(t.TempDir(), logTo(&log))
		hangs := make(chan struct{})
		began := time.Now()
		equal(t, "the first one succeeded", f.within(func() error { <-hangs; return nil }), false)
		equal(t, "waited", time.Since(began), fileWait)
		equal(t, "the second one succeeded", f.within(func() error { t.Error("it was begun"); return nil }), false)
		equal(t, "waited in all", time.Since(began), fileWait)
		equal(t, "lines about it", strings.Count(log.String(), "\n"), 1)
		contains(t, "the log", log.String(), "did not answer within")
		close(hangs)
		synctest.Wait()
		equal(t, "it succeeded when the disk works again", f.within(func() error { return nil }), true)
		contains(t, "the log", log.String(), "can be used again")
	})
}

func TestTheLargestStateFitsItsBound(t *testing.T) {
	s := newState()
	wide := strings.Repeat("<", maxLine) // six bytes each in JSON
	for i := range maxGroups + 10 {
		f := &failure{Cause: wide, Request: Request{Route: wide}, Origin: strings.Repeat("<", maxLine-8) + time.Duration(i).String(), At: t0}
		s.add(f)
	}
	for range 10_000 {
		s.Sent = append(s.Sent, time.Now())
	}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > maxState {
		t.Errorf("it has %d bytes", len(data))
	}
}
