package localpg

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent makes the kernel send the child a fast shutdown if this process is killed.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr.Pdeathsig = syscall.SIGINT }

// processesOf returns the server processes on data, the main one first. Each has data as its working directory, even
// after its parent changed. Not every user may see that: root in a container must use the main process's arguments and
// its children.
func processesOf(data string) []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // only fails for a malformed pattern
	var pids []int
	var list []entry
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if worksIn(dir, data) {
			pids = append(pids, pid)
		}
		list = append(list, entry{pid, parentIn(dir), commandIn(dir)})
	}
	return mainFirst(append(pids, familyOn(data, list)...), data)
}

func worksIn(proc, data string) bool {
	cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
	if err != nil || strings.TrimSuffix(cwd, " (deleted)") != data {
		return false
	}
	exe, err := os.Readlink(filepath.Join(proc, "exe")) // a shell may have this working directory too
	return err == nil && filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == "postgres"
}

// parentIn returns the process's parent, or 0 for a zombie.
func parentIn(proc string) int {
	text, _ := os.ReadFile(filepath.Join(proc, "stat"))
	_, rest, _ := strings.Cut(string(text), ") ") // "PID (name) state parent …"
	fields := strings.Fields(rest)
	if len(fields) < 2 || fields[0] == "Z" {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

func commandIn(proc string) string {
	text, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
	return strings.ReplaceAll(strings.TrimRight(string(text), "\x00"), "\x00", " ")
}
