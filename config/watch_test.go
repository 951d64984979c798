package config

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ddtb/db"
)

// watching watches path until the test ends; each change sends the file's content.
func watching(t *testing.T, path string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	changes, done, known := make(chan string), make(chan struct{}), identityOf(path)
	go func() {
		defer close(done)
		Watch(ctx, path, known, func() {
			content, _ := os.ReadFile(path)
			select {
			case changes <- string(content):
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return changes
}

func identityOf(path string) string {
	content, _, err := db.ReadFile(path, maxFile)
	return identity(content, err)
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
			t.Fatalf("no change to %q was reported", content)
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

func TestWatchWaitsForAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ddtb.toml")
	changes := watching(t, path)
	write(t, path, "now")
	expect(t, changes, "now")
}

// polled runs Watch in a bubble, where its intervals pass at once. A step at the beginning of each changes files. It
// returns after how many intervals each change was reported.
func polled(t *testing.T, path string, steps ...func()) (reports []int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		go Watch(ctx, path, identityOf(path), func() { reports = append(reports, int(time.Since(began)/watchInterval)) })
		synctest.Wait()
		for _, step := range steps {
			step()
			time.Sleep(watchInterval) //nolint:forbidigo // of the bubble's clock, which does not wait
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
	})
	return reports
}

func TestWatchReportsNothingButChanges(t *testing.T) {
	dir := t.TempDir()
	path := write(t, filepath.Join(dir, "ddtb.toml"), "same")
	reports := polled(t, path, func() {}, func() {},
		func() { must(t, os.Chmod(path, 0o644)) }, func() {},
		func() { write(t, path, "same") }, func() {},
		func() { write(t, filepath.Join(dir, "other"), "x") }, func() {},
		func() { must(t, os.Remove(path)) }, func() {}, func() {})
	equal(t, "the reports", reports, nil)
}

func TestAChangeIsReportedOnceWhenTheFileIsQuiet(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "ddtb.toml"), "")
	grow := func() { write(t, path, read(t, path)+"x") }
	reports := polled(t, path, grow, grow, grow, func() {}, func() {}, grow, func() {}, func() {})
	equal(t, "the intervals of the reports", reports, []int{4, 7})
}

func TestAFileThatCannotBeUsedIsAChangeAndSoIsItsRecovery(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "ddtb.toml"), "same")
	reports := polled(t, path,
		func() { write(t, path, strings.Repeat("x", maxFile+1)) }, func() {},
		func() { must(t, os.Remove(path)) }, func() {},
		func() { write(t, path, "same") }, func() {}, func() {})
	equal(t, "the intervals of the reports", reports, []int{2, 6})
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}
