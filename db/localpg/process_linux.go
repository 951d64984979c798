package localpg

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent has the kernel ask the child for a fast shutdown when we are killed.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGINT }

// processesOf are the server processes that work on data, their main one first: each of them has data as its
// working directory, whoever its parent is by now.
func processesOf(data string) []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // fails for a malformed pattern alone
	var pids []int
	for _, dir := range dirs {
		cwd, err := os.Readlink(filepath.Join(dir, "cwd"))
		if err != nil || strings.TrimSuffix(cwd, " (deleted)") != data {
			continue
		}
		exe, err := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil || filepath.Base(strings.TrimSuffix(exe, " (deleted)")) != "postgres" {
			continue // someone's shell, say
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids = append(pids, pid)
		}
	}
	return mainFirst(pids, data)
}
