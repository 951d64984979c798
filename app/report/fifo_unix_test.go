//go:build unix

package report

import (
	"syscall"
	"testing"
)

func init() {
	unusables["a FIFO"] = unusable{fifo, "is no regular file"}
	unusables["a FIFO in the place of the new file"] = unusable{func(t *testing.T, path string) { fifo(t, path+".new") }, ""}
}

func fifo(t *testing.T, path string) {
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}
