package config

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watching runs a watcher of path until the test ends; each change sends the file's content.
func watching(t *testing.T, path string) <-chan string {
	t.Helper()
	w, err := Watch(path)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	changes, done := make(chan string), make(chan error)
	go func() {
		done <- w.Run(ctx, func() {
			content, _ := os.ReadFile(path)
			select {
			case changes <- string(content):
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the watcher ends with %v", err)
		}
	})
	return changes
}

// expect waits for the change to the content. Others before it are allowed: a write may be seen half done.
func expect(t *testing.T, changes <-chan string, content string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case got := <-changes:
			if got == content {
				return
			}
		case <-deadline:
			t.Fatalf("no change to %q was told", content)
		}
	}
}

func TestWatchSeesEveryWayToSave(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "ddtb.toml"), "first")
	elsewhere := filepath.Join(t.TempDir(), "same file")
	changes := watching(t, path)
	for _, save := range []struct {
		how string
		do  func(content string) error
	}{
		{"write", func(c string) error { return os.WriteFile(path, []byte(c), 0o600) }},
		{"rename over it, as editors do", func(c string) error { return renameOver(path, c) }},
		{"write after the rename", func(c string) error { return os.WriteFile(path, []byte(c), 0o600) }},
		{"move away and write anew", func(c string) error {
			if err := os.Rename(path, path+"~"); err != nil {
				return err
			}
			return os.WriteFile(path, []byte(c), 0o600)
		}},
		{"write by another name, as through a bind mount", func(c string) error {
			if err := os.Link(path, elsewhere); err != nil {
				return err
			}
			return os.WriteFile(elsewhere, []byte(c), 0o600)
		}},
		{"rename over it while another name keeps the old file", func(c string) error { return renameOver(path, c) }},
		{"write by another name of the new file", func(c string) error {
			if err := os.Remove(elsewhere); err != nil {
				return err
			}
			if err := os.Link(path, elsewhere); err != nil {
				return err
			}
			return os.WriteFile(elsewhere, []byte(c), 0o600)
		}},
		{"remove", func(string) error { return os.Remove(path) }},
		{"create after the removal", func(c string) error { return os.WriteFile(path, []byte(c), 0o600) }},
	} {
		must(t, save.do(save.how))
		if save.how != "remove" { // which is no change
			expect(t, changes, save.how)
		}
	}
}

func renameOver(path, content string) error {
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func TestWatchFollowsLinks(t *testing.T) {
	// As Kubernetes mounts a ConfigMap: ddtb.toml -> ..data/ddtb.toml, ..data -> a directory for each version.
	dir := t.TempDir()
	write(t, filepath.Join(dir, "v1", "ddtb.toml"), "first")
	write(t, filepath.Join(dir, "v2", "ddtb.toml"), "second")
	path, data := filepath.Join(dir, "ddtb.toml"), filepath.Join(dir, "..data")
	must(t, os.Symlink("v1", data))
	must(t, os.Symlink(filepath.Join("..data", "ddtb.toml"), path))
	changes := watching(t, path)

	must(t, os.Symlink("v2", data+".new"))
	must(t, os.Rename(data+".new", data))
	expect(t, changes, "second")
	must(t, renameOver(filepath.Join(dir, "v2", "ddtb.toml"), "third, in the directory that is linked to"))
	expect(t, changes, "third, in the directory that is linked to")
	write(t, filepath.Join(dir, "v2", "ddtb.toml"), "fourth, in place")
	expect(t, changes, "fourth, in place")
}

func TestWatchWaitsWhereALinkPoints(t *testing.T) {
	target := write(t, filepath.Join(t.TempDir(), "target"), "first")
	path := filepath.Join(t.TempDir(), "ddtb.toml")
	must(t, os.Symlink(target, path))
	w, err := Watch(path)
	must(t, err)
	defer func() { must(t, w.notify.Close()) }()
	must(t, os.Remove(target))
	w.follow()
	write(t, target, "second")
	deadline := time.After(10 * time.Second)
	for created := false; !created; {
		select {
		case e := <-w.notify.Events:
			created = e.Name == target && e.Has(fsnotify.Create)
		case <-deadline:
			t.Fatal("the directory that is linked to is not watched")
		}
	}
}

func TestWatchWaitsForAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ddtb.toml")
	changes := watching(t, path)
	write(t, path, "now")
	expect(t, changes, "now")
}

// It asks the watcher itself: to wait for what does not come would take a sleep.
func TestWatchTellsNothingButChanges(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "ddtb.toml"), "same")
	w, err := Watch(path)
	must(t, err)
	defer func() { must(t, w.notify.Close()) }()
	for _, quiet := range []func(){
		func() { write(t, path, "same") },
		func() { must(t, os.Chmod(path, 0o644)) },
		func() { write(t, filepath.Join(dir, "other"), "x") },
		func() { must(t, os.Remove(path)) },
		func() { write(t, path, "same") },
	} {
		quiet()
		w.follow()
		equal(t, "changed", w.changed(), false)
	}
	write(t, path, strings.Repeat("x", maxFile+1))
	equal(t, "a file that can't be read is a change", w.changed(), true)
	equal(t, "once", w.changed(), false)
	write(t, path, "same")
	equal(t, "and so is its recovery", w.changed(), true)
}

func TestWatchNeedsAFolder(t *testing.T) {
	_, err := Watch(filepath.Join(t.TempDir(), "none", "ddtb.toml"))
	if err == nil || !strings.Contains(err.Error(), "can't watch the directory of") {
		t.Errorf("Watch says %v", err)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w, err := Watch(write(t, filepath.Join(t.TempDir(), "ddtb.toml"), ""))
	must(t, err)
	must(t, w.Run(ctx, func() { t.Error("a change is reported") }))
}

func TestASaveOfManyEventsIsOneChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		events, began := make(chan struct{}), time.Now()
		var settled []time.Duration
		done := make(chan struct{})
		go func() {
			defer close(done)
			debounce(ctx, events, func() { settled = append(settled, time.Since(began)) })
		}()
		at := func(times ...time.Duration) {
			for _, after := range times {
				time.Sleep(time.Until(began.Add(after))) //nolint:forbidigo // of the bubble's clock, which does not wait
				events <- struct{}{}
			}
			time.Sleep(time.Minute) //nolint:forbidigo // the same
			synctest.Wait()
		}
		at(0, 10*time.Millisecond, 50*time.Millisecond)
		equal(t, "one save settles", settled, []time.Duration{150 * time.Millisecond})

		settled, began = nil, time.Now()
		var busy []time.Duration
		for after := time.Duration(0); after < 1900*time.Millisecond; after += 50 * time.Millisecond {
			busy = append(busy, after)
		}
		at(busy...)
		equal(t, "a directory that never gets quiet settles", settled, []time.Duration{time.Second, 1950 * time.Millisecond})
		cancel()
		<-done
	})
}
